"""Assignment: hand-made collisions, and properties of random ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gr2_jax.sid import assign


def test_uniqueness_and_collisions_by_hand():
  sids = np.array([[0, 1], [0, 1], [1, 1], [0, 1]])
  assert assign.uniqueness(sids) == 0.5
  assert assign.collisions(sids) == 2


def test_random_last_level_parts_only_what_collides():
  sids = np.array([[0, 1], [0, 1], [1, 1], [0, 2], [0, 1]])
  parted = assign.random_last_level(sids, 4, seed=0)
  # The first of the three keeps its code; the others draw 0 and 3, the only
  # codes that no item of the prefix has.
  np.testing.assert_array_equal(parted[[0, 2, 3]], sids[[0, 2, 3]])
  assert sorted(parted[[1, 4], 1].tolist()) == [0, 3]
  np.testing.assert_array_equal(parted[:, 0], sids[:, 0])


def test_random_last_level_leaves_what_does_not_fit():
  parted = assign.random_last_level(np.zeros((6, 2), int), 4, seed=0)
  assert assign.collisions(parted) == 2
  assert not parted[:, 0].any()


def test_draws_depend_on_the_seed():
  sids = np.zeros((20, 2), int)
  one, same, other = (
    assign.random_last_level(sids, 64, seed) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(one, same)
  assert (one != other).any()


def test_conflicts_move_as_little_as_possible():
  sids = np.array([[1, 1, 2], [1, 1, 2], [1, 1, 0], [1, 1, 2], [1, 1, 1]])
  np.testing.assert_array_equal(
    assign.resolve_conflicts(sids, 3),
    # All of (1, 1, *) is taken, so the middle code moves on.
    [[1, 1, 2], [1, 2, 2], [1, 1, 0], [1, 2, 0], [1, 1, 1]],
  )


def test_more_items_than_sids():
  with pytest.raises(ValueError, match='5 items do not fit 2.2 SIDs'):
    assign.resolve_conflicts(np.zeros((5, 2), int), 2)


@settings(max_examples=60, deadline=None)
@given(
  hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 27), st.just(3)),
    elements=st.integers(0, 2),
  )
)
def test_no_collision_remains(nearest):
  raw, sids = assign.assign(nearest, 3, seed=3)
  np.testing.assert_array_equal(raw[:, :-1], nearest[:, :-1])
  assert assign.uniqueness(raw) >= assign.uniqueness(nearest)
  assert assign.collisions(sids) == 0
  assert sids.min() >= 0 and sids.max() < 3
  # Whoever had an SID of its own, or came first, keeps it.
  _, first = np.unique(raw, axis=0, return_index=True)
  np.testing.assert_array_equal(sids[first], raw[first])
  plain, _ = assign.assign(nearest, 3, seed=3, last_level='nearest')
  np.testing.assert_array_equal(plain, nearest)
