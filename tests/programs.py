"""Compiled programs are kept for other workers and later runs.

Most of the tests' time is compilation. JAX keeps compiled programs in files
itself, but writes them in place: a worker could read what another one has half
written, and a killed one would leave half a file for ever.
"""

import contextlib
import hashlib
import os
import pathlib
import threading

import jax
import pytest
from jax._src import compilation_cache, compilation_cache_interface

from gr2_jax import assets

_LARGEST = 4 * 2**30


class Programs(compilation_cache_interface.CacheInterface):
  """A file for each program, named by the key that JAX computes."""

  def __init__(self, path: str):
    self._path = pathlib.Path(path)
    self._path.mkdir(parents=True, exist_ok=True)

  def get(self, key: str) -> bytes | None:
    path = self._path / key
    with contextlib.suppress(FileNotFoundError):
      os.utime(path)
      return path.read_bytes()
    return None

  def put(self, key: str, value: bytes) -> None:
    part = self._path / f'.{os.getpid()}.{threading.get_ident()}'
    part.write_bytes(value)
    os.replace(part, self._path / key)


def prune(directory: pathlib.Path, largest: int) -> None:
  """Removes what was not used for longest, down to `largest` bytes."""
  found = []
  for path in directory.glob('*'):
    # Another run may remove it meanwhile.
    with contextlib.suppress(FileNotFoundError):
      found.append((path.stat(), path))
  for stat, path in sorted(found, key=lambda x: -x[0].st_mtime):
    largest -= stat.st_size
    if largest < 0:
      path.unlink(missing_ok=True)


def keep(directory: str | pathlib.Path) -> None:
  """Lets JAX keep all programs, the smallest too, in a directory."""
  compilation_cache.reset_cache()
  compilation_cache.get_file_cache = lambda path: (Programs(path), path)
  jax.config.update('jax_compilation_cache_dir', str(directory))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def _processor() -> str:
  """Returns a name for this kind of processor, whose code others cannot run."""
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  flags = [line for line in lines if line.startswith(('flags', 'Features'))]
  return hashlib.sha256(''.join(flags[:1]).encode()).hexdigest()[:8]


def pytest_configure(config: pytest.Config) -> None:
  """Keeps programs beside the project's other cached files."""
  directory = assets.cache_directory() / 'xla_tests' / _processor()
  if not hasattr(config, 'workerinput'):
    prune(directory, _LARGEST)
  keep(directory)
