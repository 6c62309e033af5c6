"""The estimate of a run, beside what two of them took."""

import types

import numpy as np
import pytest

from configs import quickstart
from gr2_jax.data import counting
from gr2_jax.run import costs

COUNTS = counting.Counts(1349, np.repeat([20, 40, 65, 120, 280], 189))


def _minutes(config, counts=COUNTS):
  # Two cores: what the quickstart's numbers in results/ were made on.
  return costs.minutes(costs.estimate(config, counts), 140e9)


def test_the_quickstart_takes_about_what_it_took():
  found = _minutes(quickstart.get_config())
  # results/quickstart_ml100k.json, in seconds.
  took = {
    'midtrain': 314.5, 'candidates': 196.8, 'sft': 283.8, 'rl': 366.2,
    'evaluate': 360.2,
  }  # fmt: skip
  for name, seconds in took.items():
    assert 0.5 < found[name] / (seconds / 60) < 2, name
  assert sum(found.values()) == pytest.approx(1545 / 60, rel=1 / 3)


def test_more_work_takes_longer():
  config = quickstart.get_config()
  before = _minutes(config)
  config.midtrain.all.steps *= 2
  after = _minutes(config)
  assert after['midtrain'] > 1.8 * before['midtrain']
  assert after['sft'] == before['sft']
  config.lm.layers *= 2
  assert all(_minutes(config)[name] > after[name] for name in ('sft', 'rl'))
  more = counting.Counts(1349, np.tile(COUNTS.lengths, 3))
  wider = _minutes(config, more)
  assert wider['candidates'] > 2 * _minutes(config)['candidates']


def test_rates_by_device(monkeypatch):
  device = lambda platform, kind: types.SimpleNamespace(
    platform=platform, device_kind=kind
  )
  cores = {0, 1, 2, 3}
  monkeypatch.setattr(costs.os, 'sched_getaffinity', lambda pid: cores)
  cpu = [device('cpu', 'cpu')]
  assert costs.rate(cpu, 160) == 4 * 70e9
  assert costs.rate(cpu, 320) == 8 * 70e9
  tpus = [device('tpu', 'TPU v4')] * 2
  assert costs.rate(tpus, 160) == pytest.approx(0.03 * 550e12)
  assert costs.rate([device('gpu', 'never heard of')], 160) is None


def test_it_is_told_with_the_device():
  first, second = costs.lines(quickstart.get_config(), COUNTS)
  assert first.startswith('About ') and 'CPU core' in first
  assert 'GiB of memory: an estimate' in first
  assert 'midtrain' in second
  config = quickstart.get_config()
  config.traces.teacher = 'endpoint'
  (only,) = costs.lines(config, COUNTS)
  assert 'not estimated' in only
