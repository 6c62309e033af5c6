import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits

ITEMS = [dataset_lib.Item(str(i), f'item {i}') for i in range(40)]


def _dataset(lengths):
  # Every interaction is another item of its user: an item tells its position.
  return dataset_lib.from_sequences(
    'test', ITEMS, {f'u{u:03}': range(n) for u, n in enumerate(lengths)}
  )


def test_leave_one_out_by_hand():
  made = splits.make(_dataset([5, 4, 3, 2, 1, 0]), splits.SplitConfig())
  np.testing.assert_array_equal(made.train_end, [2, 1, 1, 1, 1, 0])
  np.testing.assert_array_equal(
    made.examples['test'], [[0, 1, 2, 3], [4, 3, 2, 1]]
  )
  np.testing.assert_array_equal(made.examples['valid'], [[0, 1, 2], [3, 2, 1]])
  np.testing.assert_array_equal(made.examples['train'], [[0, 1], [2, 1]])


def test_without_training_positions_the_retriever_gets_all_before_validation():
  made = splits.make(_dataset([5]), splits.SplitConfig(n_train=0))
  np.testing.assert_array_equal(made.train_end, [3])
  assert made.examples['train'][0].size == 0
  np.testing.assert_array_equal(made.examples['valid'], [[0], [3]])


def test_last_n_by_hand():
  cfg = splits.SplitConfig('last_n', n_test=2, n_valid=1, n_train=3)
  made = splits.make(_dataset([9, 4]), cfg)
  np.testing.assert_array_equal(made.train_end, [3, 1])
  np.testing.assert_array_equal(
    made.examples['test'], [[0, 0, 1, 1], [7, 8, 2, 3]]
  )
  np.testing.assert_array_equal(made.examples['valid'], [[0, 1], [6, 1]])
  np.testing.assert_array_equal(made.examples['train'], [[0, 0, 0], [3, 4, 5]])


_CONFIGS = st.one_of(
  st.builds(
    splits.SplitConfig,
    kind=st.just('leave_one_out'),
    n_train=st.integers(0, 1),
    min_history=st.integers(1, 4),
  ),
  st.builds(
    splits.SplitConfig,
    kind=st.just('last_n'),
    n_test=st.integers(1, 5),
    n_valid=st.integers(0, 5),
    n_train=st.integers(0, 5),
    min_history=st.integers(1, 4),
  ),
)


@hypothesis.settings(deadline=None)
@hypothesis.given(
  st.lists(st.integers(0, 30), min_size=1, max_size=8), _CONFIGS
)
def test_no_held_out_interaction_is_in_what_the_retriever_sees(lengths, cfg):
  dataset = _dataset([*lengths, 30])
  made = splits.make(dataset, cfg)
  seen = {
    (user, position)
    for user in range(dataset.num_users)
    for position in range(made.train_end[user])
  }
  held_out = {
    name: set(zip(*(array.tolist() for array in pair), strict=True))
    for name, pair in made.examples.items()
  }
  everything = {
    (user, position)
    for user, length in enumerate(dataset.lengths)
    for position in range(length)
  }
  # Four parts without overlap, and nothing is lost.
  parts = [seen, *held_out.values()]
  assert sum(len(part) for part in parts) == len(everything)
  assert set().union(*parts) == everything


@hypothesis.settings(deadline=None)
@hypothesis.given(
  st.lists(st.integers(0, 30), min_size=1, max_size=8), _CONFIGS
)
def test_boundaries(lengths, cfg):
  dataset = _dataset([*lengths, 30])
  made = splits.make(dataset, cfg)
  counts = {'test': cfg.n_test, 'valid': cfg.n_valid, 'train': cfg.n_train}
  for user, length in enumerate(dataset.lengths):
    end = length
    for name in ('test', 'valid', 'train'):
      users, positions = made.examples[name]
      own = positions[users == user].tolist()
      # The positions right before the later split, no more than asked for, and
      # fewer only where the history would be too short.
      assert own == list(range(end - len(own), end))
      assert len(own) <= counts[name]
      assert all(position >= cfg.min_history for position in own)
      if len(own) < counts[name]:
        assert end - len(own) <= max(cfg.min_history, 0)
      end -= len(own)
    assert made.train_end[user] == end


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'kind': 'random'}, "'random'"),
    ({'n_test': 2}, "use kind 'last_n'"),
    ({'kind': 'last_n', 'n_valid': -1}, 'split.n_valid is below 0'),
    ({'min_history': 0}, 'split.min_history is 0'),
  ],
)
def test_bad_configs_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    splits.SplitConfig(**fields)


def test_users_that_are_all_too_short_are_an_error():
  with pytest.raises(ValueError, match='None of the 2 users'):
    splits.make(_dataset([3, 2]), splits.SplitConfig(min_history=3))
