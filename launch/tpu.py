"""Flags of the TPU compiler, for every command and ahead of time."""

import os

# In MiB: no product is so large. Otherwise the compiler spreads products of
# split matrices over the ring of devices and adds up in memory, sixteen times a
# layer with fsdp over 32: by the estimate of `launch.aot` a training step of
# Qwen3-8B on v5e:8x8 took 1.19 s, where gathering first takes 0.63 s.
_WINDOWED = '--xla_jf_spmd_threshold_for_windowed_einsum_mib'


def set_flags() -> None:
  """Adds to LIBTPU_INIT_ARGS, which is read when JAX starts.

  A flag that is there already keeps its value. Without a TPU nothing reads it.
  """
  given = os.environ.get('LIBTPU_INIT_ARGS', '')
  if _WINDOWED not in given:
    os.environ['LIBTPU_INIT_ARGS'] = f'{given} {_WINDOWED}=1000000'.strip()
