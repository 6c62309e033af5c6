"""A strict session: eight CPU devices, warnings and rank promotion raise."""

import contextlib
import gc
import os
import pathlib

from gr2_jax import assets

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the tests' time is compilation of small programs: compile fast. XLA's
# older emitter of fusions takes half as long to compile as the one with MLIR.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE',
    '--xla_backend_optimization_level=0',
    '--xla_cpu_use_fusion_emitters=false',
  ]
)
# Compiled programs are kept for later runs, and for what tests start.
_PROGRAMS = {
  'JAX_COMPILATION_CACHE_DIR': str(assets.cache_directory() / 'xla_tests'),
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.05',
  'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
}
for _name, _value in _PROGRAMS.items():
  os.environ.setdefault(_name, _value)

import jax  # noqa: E402
import pytest  # noqa: E402

pytest_plugins = ['tests.workers']

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')


# Linux allows a process 65,530 mappings; each compiled program takes some, and
# the compiler crashes without a message when they are used up.
_MOST_MAPPINGS = 20_000


@pytest.fixture(autouse=True, scope='module')
def _few_mappings():
  """Forgets compiled programs after a module if there are many."""
  yield
  maps = pathlib.Path('/proc/self/maps')
  if maps.exists() and len(maps.read_bytes().splitlines()) > _MOST_MAPPINGS:
    jax.clear_caches()
    gc.collect()


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


@pytest.fixture
def workdir(tmp_path, monkeypatch):
  """A run whose stages data and sid are finished."""
  import numpy as np

  from gr2_jax import files
  from gr2_jax.data import stored
  from tests.integration import small

  monkeypatch.setattr(stored, 'load', lambda directory: small.dataset())
  for stage in ('data', 'sid'):
    (tmp_path / stage).mkdir()
    files.write_json(tmp_path / stage / 'DONE', {'fingerprint': stage})
  files.atomic_savez(
    tmp_path / 'sid' / 'sids.npz', sids=small.sids().astype(np.int32)
  )
  return tmp_path


@pytest.fixture
def killed_after(monkeypatch):
  """`with killed_after(module, name, calls): ...` ends as if it were killed.

  `module.name` works so many times; the next call stands for SIGKILL.
  """

  @contextlib.contextmanager
  def kill(module, name, calls):
    whole, left = getattr(module, name), calls

    def crash(*args, **kwargs):
      nonlocal left
      left -= 1
      if left < 0:
        raise KeyboardInterrupt
      return whole(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      patch.setattr(module, name, crash)
      yield

  return kill
