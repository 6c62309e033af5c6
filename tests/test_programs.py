"""Programs of the tests are kept whole, and not for ever."""

import os
import threading

import jax
import jax.numpy as jnp
import pytest

from tests import programs


@pytest.fixture
def kept(tmp_path):
  """The tests' cache moved to an empty directory."""
  directory = jax.config.jax_compilation_cache_dir
  programs.keep(tmp_path)
  yield tmp_path
  programs.keep(directory)


def test_a_second_worker_reads_what_the_first_one_compiled(kept):
  events = []
  listen = lambda event, **_: events.append(event.rsplit('/', 1)[-1])
  jax.monitoring.register_event_listener(listen)
  try:
    for _ in range(2):
      # A function of its own, as in another process.
      double = jax.jit(lambda x: jnp.sin(x) * 2 + jnp.arange(7.0))
      found = double(jnp.ones(7))
    assert found.tolist() == double(jnp.ones(7)).tolist()
  finally:
    jax.monitoring.unregister_event_listener(listen)
  assert events.count('cache_misses') >= 1
  assert events.count('cache_hits') >= 1
  assert events.index('cache_misses') < events.index('cache_hits')
  assert list(kept.iterdir())


def test_no_reader_sees_half_a_program(tmp_path):
  """While several threads write the same one again and again."""
  cache, whole = programs.Programs(tmp_path), b'x' * 2_000_000
  assert cache.get('key') is None
  cache.put('key', whole)
  writers = [
    threading.Thread(
      target=lambda: [cache.put('key', whole) for _ in range(20)]
    )
    for _ in range(2)
  ]
  for writer in writers:
    writer.start()
  while any(writer.is_alive() for writer in writers):
    assert cache.get('key') == whole
  for writer in writers:
    writer.join()
  assert [path.name for path in tmp_path.iterdir()] == ['key']


def test_what_was_not_used_for_longest_goes_first(tmp_path):
  cache = programs.Programs(tmp_path)
  for age, key in enumerate('dcba'):
    cache.put(key, bytes(10))
    os.utime(tmp_path / key, (1e9 - age, 1e9 - age))
  assert cache.get('a') == bytes(10)  # Used now.
  programs.prune(tmp_path, 25)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'd']
