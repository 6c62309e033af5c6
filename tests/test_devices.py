import types

import pytest

from gr2_jax import devices


def _device(kind, platform='tpu'):
  return types.SimpleNamespace(device_kind=kind, platform=platform)


def test_peaks_add_up():
  kind = 'TPU v5 lite'
  assert devices.peak_flops([_device(kind)] * 4) == pytest.approx(4 * 197e12)


def test_a_cpu_has_no_peak(caplog):
  assert devices.peak_flops([_device('cpu', 'cpu')]) is None
  assert not caplog.text


def test_an_accelerator_that_is_not_known_is_named(caplog):
  assert devices.peak_flops([_device('TPU v5'), _device('TPU v99')]) is None
  assert "['TPU v99']" in caplog.text and 'devices.py' in caplog.text
