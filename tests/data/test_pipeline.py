import collections
import json

import grain
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import pipeline, rows


class Source:
  """Examples whose first token names them and whose weights are known."""

  def __init__(self, lengths, base):
    self.lengths = lengths
    self.base = base

  def __len__(self):
    return len(self.lengths)

  def __getitem__(self, index):
    n = self.lengths[index]
    tokens = np.arange(n, dtype=np.int32) + self.base + 1000 * index
    weights = np.linspace(0, 1, n, dtype=np.float32) if n > 1 else np.zeros(1)
    return {'tokens': tokens, 'weights': weights}


def _examples(batch):
  """Cuts a batch into {first token: (tokens, weights, task)} entries."""
  for row in range(len(batch['tokens'])):
    segments = batch['segments'][row]
    for segment in range(1, segments.max() + 1):
      inside = segments == segment
      tokens = batch['tokens'][row][inside]
      np.testing.assert_array_equal(
        batch['positions'][row][inside], np.arange(len(tokens))
      )
      task = set(batch['task'][row][inside].tolist())
      assert len(task) == 1
      yield tokens, batch['weights'][row][inside], task.pop()


def _assert_same(left, right):
  assert left.keys() == right.keys()
  for name in left:
    np.testing.assert_array_equal(left[name], right[name])


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
  st.lists(st.integers(1, 16), min_size=1, max_size=60), st.integers(0, 5)
)
def test_an_epoch_has_every_example_once_and_whole(lengths, seed):
  source = Source(lengths, 0)
  iterator = pipeline.lm_iterator(
    {'a': source}, {'a': 1.0}, 16, 3, seed=seed, num_epochs=1
  )
  seen = collections.Counter()
  for batch in iterator:
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
      'tokens': ((3, 16), 'int32'),
      'segments': ((3, 16), 'int32'),
      'positions': ((3, 16), 'int32'),
      'weights': ((3, 16), 'float32'),
      'task': ((3, 16), 'int32'),
    }
    padding = batch['segments'] == 0
    assert not batch['tokens'][padding].any()
    assert not batch['weights'][padding].any()
    for tokens, weights, task in _examples(batch):
      index = int(tokens[0]) // 1000
      seen[index] += 1
      assert task == 0
      np.testing.assert_array_equal(tokens, source[index]['tokens'])
      np.testing.assert_array_equal(weights, source[index]['weights'])
  assert seen == collections.Counter(range(len(lengths)))


def _mixed(seed=0, **changes):
  sources = {
    'long': Source([9, 12, 7, 16, 10], 500_000),
    'short': Source([3, 4, 5, 2] * 20, 0),
  }
  fields = {
    'weights': {'short': 0.75, 'long': 0.25},
    'length': 32,
    'batch_size': 4,
    'seed': seed,
    **changes,
  }
  return pipeline.lm_iterator(sources, **fields)


def test_tasks_are_mixed_by_weight():
  iterator = _mixed()
  tasks = collections.Counter(
    task for _ in range(60) for *_, task in _examples(next(iterator))
  )
  total = sum(tasks.values())
  # Mixing is exact; what packing holds back is below two per cent here.
  assert total > 1000
  assert tasks[1] / total == pytest.approx(0.75, abs=0.02)


def test_packing_leaves_little_room():
  iterator = _mixed()
  fill = np.mean([(next(iterator)['segments'] > 0).mean() for _ in range(30)])
  assert fill > 0.95


def test_seeds_and_epochs_give_other_orders():
  def order(seed):
    drawn = rows.Shuffle(grain.MapDataset.source(range(50)), seed, 2)
    assert len(drawn) == 100
    numbers = [int(drawn[place]) for place in range(100)]
    return [numbers[:50], numbers[50:]]

  first, second = order(0)
  assert sorted(first) == sorted(second) == list(range(50))
  assert first != second
  assert order(0) == [first, second]
  assert order(1)[0] != first


@pytest.mark.parametrize('steps', [0, 1, 7, 40])
def test_a_restored_iterator_continues_exactly(steps):
  iterator = _mixed()
  for _ in range(steps):
    next(iterator)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = [next(iterator) for _ in range(20)]
  fresh = _mixed()
  next(fresh)
  fresh.set_state(state)
  for batch in expected:
    _assert_same(next(fresh), batch)


def test_the_state_of_other_data_is_refused():
  state = _mixed().get_state()
  with pytest.raises(ValueError, match="'length': .32, 24."):
    _mixed(length=24).set_state(state)


def test_a_too_long_example_is_an_error_that_names_its_source():
  iterator = pipeline.lm_iterator(
    {'a': Source([20], 0)}, {'a': 1.0}, 16, 1, seed=0
  )
  with pytest.raises(ValueError, match="'a' gave an example of 20 tokens"):
    next(iterator)


@pytest.mark.parametrize(
  ('example', 'shapes'),
  [
    ({'tokens': [1, 2], 'weights': [0.0]}, r'\(2,\) and weights \(1,\)'),
    ({'tokens': [], 'weights': []}, 'must be'),
    ({'tokens': [1, 2], 'weights': [1.0, 1.0]}, 'nothing predicts'),
  ],
)
def test_malformed_examples_are_errors(example, shapes):
  iterator = pipeline.lm_iterator({'a': [example]}, {'a': 1.0}, 16, 1, seed=0)
  with pytest.raises(ValueError, match=shapes):
    next(iterator)


@pytest.mark.parametrize(
  ('sources', 'weights', 'epochs', 'message'),
  [
    ({}, {}, None, 'Give at least one source'),
    ({'a': []}, {'a': 1.0}, None, r"without any example: \['a'\]"),
    ({'a': [0]}, {'b': 1.0}, None, 'do not fit the sources'),
    ({'a': [0]}, None, None, 'do not fit the sources'),
    ({'a': [0], 'b': [0]}, {'a': 1.0, 'b': 0.0}, None, 'do not fit'),
    ({'a': [0], 'b': [0]}, {'a': 1.0, 'b': 1.0}, 1, 'would have no effect'),
    ({'a': [0]}, {'a': 1.0}, 0, 'num_epochs is 0'),
  ],
)
def test_sources_and_weights_must_fit(sources, weights, epochs, message):
  with pytest.raises(ValueError, match=message):
    pipeline.lm_iterator(sources, weights, 8, 1, seed=0, num_epochs=epochs)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 9))
def test_index_batches_walk_through_whole_epochs(n, batch_size, seed):
  iterator = pipeline.index_iterator(n, batch_size, seed)
  drawn = []
  while len(drawn) < 3 * n:
    batch = next(iterator)
    assert batch.shape == (batch_size,)
    assert batch.dtype == np.int32
    drawn += batch.tolist()
  for epoch in range(3):
    assert sorted(drawn[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_a_restored_index_iterator_continues_exactly():
  iterator = pipeline.index_iterator(10, 4, seed=1)
  for _ in range(7):
    next(iterator)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = [next(iterator) for _ in range(10)]
  fresh = pipeline.index_iterator(10, 4, seed=1)
  fresh.set_state(state)
  np.testing.assert_array_equal([next(fresh) for _ in range(10)], expected)
  with pytest.raises(ValueError, match="'n': .10, 11."):
    pipeline.index_iterator(11, 4, seed=1).set_state(state)


def test_index_iterators_need_something_to_draw_from():
  with pytest.raises(ValueError, match='n=0'):
    pipeline.index_iterator(0, 4, seed=0)
