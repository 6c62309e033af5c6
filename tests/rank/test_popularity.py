import types

import numpy as np

from gr2_jax.rank import popularity


def _train():
  sequences = [[0, 1, 2, 3], [1, 2, 4, 4], [2, 1, 3, 3]]
  dataset = types.SimpleNamespace(
    num_items=6,
    num_users=3,
    sequence=lambda user: np.array(sequences[user], np.int32),
  )
  splits = types.SimpleNamespace(train_end=np.array([2, 2, 3]))
  return popularity.train(dataset, splits)


def test_counts_stop_before_the_held_out_part():
  # [0, 1], [1, 2], [2, 1, 3]; the 3s and 4s after these are held out.
  np.testing.assert_array_equal(_train().counts, [1, 3, 2, 1, 0, 0])


def test_top_k_by_count_then_index_without_the_seen():
  items, values = popularity.top_k(
    _train(), [np.array([1, 5]), np.array([], np.int32)], 3
  )
  np.testing.assert_array_equal(items, [[2, 0, 3], [1, 2, 0]])
  np.testing.assert_array_equal(values, [[2, 1, 1], [3, 2, 1]])


def test_top_k_with_the_seen():
  items, _ = popularity.top_k(_train(), [np.array([1])], 2, exclude_seen=False)
  np.testing.assert_array_equal(items, [[1, 2]])


def test_short_catalogue_is_padded():
  items, values = popularity.top_k(_train(), [np.array([1, 2, 0, 3])], 4)
  np.testing.assert_array_equal(items, [[4, 5, -1, -1]])
  assert np.isneginf(values[0, 2:]).all()
