"""A strict session: eight CPU devices, warnings and rank promotion raise."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the tests' time is compilation of small programs: compile fast.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE',
    '--xla_backend_optimization_level=0',
  ]
)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='session')
def mesh8():
  """A mesh of eight devices: data 2, fsdp 2, tensor 2."""
  from gr2_jax import sharding

  return sharding.make_mesh(data=2, fsdp=2, tensor=2)


@pytest.fixture(scope='session')
def mesh1():
  """A mesh of one device."""
  from gr2_jax import sharding

  return sharding.make_mesh(devices=jax.devices()[:1])
