"""Where time is booked, rates by hand, and what is compiled."""

import types

import jax
import jax.numpy as jnp
import pytest

from gr2_jax.train import timing


@pytest.fixture
def hands(monkeypatch):
  """A clock that goes when it is told."""
  now = types.SimpleNamespace(time=100.0)
  monkeypatch.setattr(timing.time, 'monotonic', lambda: now.time)

  def wait(seconds):
    now.time += seconds

  return wait


def test_all_time_is_booked_on_one_part(hands):
  clock = timing.Clock(peak_flops=50.0)
  for _ in range(2):
    with clock.book('data'):
      hands(1)
      clock.did({'tokens': 30, 'flops': 200})
    hands(3)
  with clock.book('evaluation'):
    hands(5)
    with clock.book('checkpoint'):
      hands(7)
    hands(2)
  record = clock.take()
  parts = {'data': 2, 'compute': 6, 'checkpoint': 7, 'evaluation': 7}
  assert {k: record[f'seconds/{k}'] for k in parts} == parts
  assert record['seconds'] == 22
  # Evaluation and checkpoints do not count against the training's speed.
  assert record['tokens_per_second'] == 60 / 8
  assert record['mfu'] == 400 / 8 / 50
  assert all(record[f'compilations/{part}'] == 0 for part in parts)
  hands(4)
  record = clock.take()
  assert record['seconds'] == record['seconds/compute'] == 4
  assert 'mfu' not in record and 'tokens_per_second' not in record


def test_an_exception_gives_the_time_back_to_the_part_before(hands):
  clock = timing.Clock()
  with pytest.raises(KeyError), clock.book('data'):
    hands(1)
    raise KeyError
  hands(2)
  record = clock.take()
  assert (record['seconds/data'], record['seconds/compute']) == (1, 2)


def test_without_a_peak_there_is_no_mfu(hands):
  clock = timing.Clock()
  clock.did({'tokens': 3, 'flops': 9})
  hands(1)
  record = clock.take()
  assert 'mfu' not in record and record['tokens_per_second'] == 3


def test_compilations_are_booked_where_they_happen():
  double = jax.jit(lambda x: 2 * x + 1)
  clock = timing.Clock()
  x, y = jnp.zeros(3), jnp.zeros(4)
  clock.take()
  double(x)
  double(x)
  assert clock.take()['compilations/compute'] == 1
  with clock.book('evaluation'):
    double(y)
  record = clock.take()
  assert record['compilations/evaluation'] == 1
  assert record['compilations/compute'] == 0
  double(x)
  assert clock.take()['compilations/compute'] == 0
