import json

import numpy as np

from gr2_jax.data import seeded


class Batches:
  """Stands for an iterator of the pipeline over B rows."""

  def __init__(self, rows):
    self.rows = rows
    self.place = 0

  def __next__(self):
    self.place += 1
    return {'tokens': np.full((self.rows, 2), self.place)}

  def get_state(self):
    return {'place': self.place}

  def set_state(self, state):
    self.place = state['place']


def test_seeds_differ_by_row_step_and_run():
  one, other = (seeded.Seeded(Batches(4), seed) for seed in (0, 1))
  drawn = [next(it)['seed'] for it in (one, one, other, other)]
  assert all(x.dtype == np.uint32 and x.shape == (4,) for x in drawn)
  assert len(np.unique(np.stack(drawn))) == 16


def test_a_resumed_iterator_goes_on():
  whole = seeded.Seeded(Batches(3), 5)
  want = [next(whole)['seed'] for _ in range(4)]
  first, second = (seeded.Seeded(Batches(3), 5) for _ in range(2))
  next(first), next(first)
  second.set_state(json.loads(json.dumps(first.get_state())))
  batch = next(second)
  np.testing.assert_array_equal(batch['seed'], want[2])
  assert batch['tokens'][0, 0] == 3
