"""Several iterators as one: their batches, their places, their names."""

import json

import pytest

from gr2_jax.data import mixed


class _Count:
  """Counts from a number on."""

  def __init__(self, number):
    self.number = number

  def __next__(self):
    self.number += 1
    return self.number

  def get_state(self):
    return {'number': self.number}

  def set_state(self, state):
    self.number = state['number']


def _make(**numbers):
  return mixed.Mixed({name: _Count(number) for name, number in numbers.items()})


def test_a_batch_holds_one_of_each_part():
  both = _make(a=0, b=10)
  assert iter(both) is both
  assert [next(both), next(both)] == [{'a': 1, 'b': 11}, {'a': 2, 'b': 12}]


def test_it_goes_on_where_it_was():
  first = _make(a=0, b=10)
  next(first)
  state = json.loads(json.dumps(first.get_state()))
  want = [next(first), next(first)]
  again = _make(b=10, a=0)
  again.set_state(state)
  assert [next(again), next(again)] == want


@pytest.mark.parametrize('parts', [{'a': 0}, {'a': 0, 'c': 1}, {}])
def test_a_place_in_other_data_is_refused(parts):
  state = _make(a=0, b=10).get_state()
  other = _make(**parts)
  before = other.get_state()
  with pytest.raises(ValueError, match=r"of \['a', 'b'\].*settings"):
    other.set_state(state)
  assert other.get_state() == before
