"""How fast accelerators can be, by the name that JAX gives them."""

from collections.abc import Sequence

import jax
from absl import logging

# Dense bfloat16 FLOP/s of one JAX device, as the vendors publish them (without
# sparsity). A device is a whole chip but for the TPU v2, v3 and 7x, where it is
# half of one. A CPU is not here: nothing says what one can do.
PEAK_FLOPS = {
  'TPU v2': 22.5e12,
  'TPU v3': 61.5e12,
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
  'TPU v5e': 197e12,
  'TPU v5': 459e12,
  'TPU v5p': 459e12,
  'TPU v6 lite': 918e12,
  'TPU v6e': 918e12,
  'TPU7x': 1153.5e12,
  'NVIDIA A100-SXM4-40GB': 312e12,
  'NVIDIA A100-SXM4-80GB': 312e12,
  'NVIDIA A100 80GB PCIe': 312e12,
  'NVIDIA L4': 121e12,
  'NVIDIA L40S': 362e12,
  'NVIDIA H100 PCIe': 756e12,
  'NVIDIA H100 80GB HBM3': 989e12,
  'NVIDIA H200': 989e12,
  'NVIDIA B200': 2250e12,
}


def peak_flops(devices: Sequence[jax.Device]) -> float | None:
  """Returns the peak of devices taken together.

  Args:
    devices: any devices.

  Returns:
    FLOP/s, dense bfloat16; None where the peak of one is not known, which is
    so of every CPU.
  """
  unknown = {d.device_kind for d in devices} - set(PEAK_FLOPS)
  if unknown:
    if any(device.platform != 'cpu' for device in devices):
      logging.warning(
        'No peak is known of %s, so no MFU is recorded: add its FLOP/s to '
        'gr2_jax/devices.py.',
        sorted(unknown),
      )
    return None
  return sum(PEAK_FLOPS[device.device_kind] for device in devices)
