"""New items: what exists stays, what comes is distinct and goes by content."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.sid import assign, growth

C = 6


def test_by_hand():
  sids = np.array([[0, 0], [0, 1], [2, 5]])
  nearest = np.array([[1, 1], [0, 0], [2, 5]])
  keys = np.array([3, 1, 2], np.uint64)
  raw, new = growth.extend(sids, nearest, keys, C)
  np.testing.assert_array_equal(raw, new)
  np.testing.assert_array_equal(new[0], [1, 1])
  assert new[1][0] == 0 and new[1][1] in (2, 3, 4, 5)
  assert new[2][0] == 2 and new[2][1] != 5


def test_a_full_prefix_spills_to_the_next_and_raw_says_so():
  sids = np.stack([np.zeros(C, int), np.arange(C)], 1)
  raw, new = growth.extend(sids, np.array([[0, 3]]), np.array([7]), C)
  np.testing.assert_array_equal(raw, [[0, 3]])
  np.testing.assert_array_equal(new, [[1, 3]])


def test_without_the_random_last_level_raw_is_the_quantiser():
  sids = np.array([[0, 0]])
  raw, new = growth.extend(
    sids, np.array([[0, 0]]), np.array([7]), C, 'nearest'
  )
  np.testing.assert_array_equal(raw, [[0, 0]])
  np.testing.assert_array_equal(new, [[0, 1]])


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  old=st.integers(0, 40),
  count=st.integers(0, 60),
  seed=st.integers(0, 2**31),
)
def test_distinct_whatever_comes_and_in_any_order(old, count, seed):
  rng = np.random.default_rng(seed)
  _, sids = assign.assign(rng.integers(0, C, (old, 3)) // 2, C, 0)
  nearest = rng.integers(0, C, (count, 3)) // 2
  keys = rng.permutation(10_000)[:count].astype(np.uint64)
  raw, new = growth.extend(sids, nearest, keys, C)
  assert len(np.unique(np.concatenate([sids, new]), axis=0)) == old + count
  assert (raw[:, :-1] == nearest[:, :-1]).all()
  order = rng.permutation(count)
  shuffled = growth.extend(sids, nearest[order], keys[order], C)
  np.testing.assert_array_equal(shuffled[0], raw[order])
  np.testing.assert_array_equal(shuffled[1], new[order])


def test_a_catalogue_grows_tenfold():
  rng = np.random.default_rng(0)
  codes, levels = 16, 4

  # Crowded: half of the items live under a few prefixes.
  def draw(count):
    rows = rng.integers(0, codes, (count, levels))
    rows[::2, :2] %= 5
    return rows

  _, sids = assign.assign(draw(500), codes, 0)
  start = sids.copy()
  for step in range(9):
    keys = growth.content_keys([f'{step} {i}' for i in range(500)])
    raw, new = growth.extend(sids, draw(500), keys, codes)
    assert assign.uniqueness(np.concatenate([sids, raw])) > 0.99
    sids = np.concatenate([sids, new])
  assert len(sids) == 5000 and assign.collisions(sids) == 0
  np.testing.assert_array_equal(sids[:500], start)


def test_keys_come_from_the_text_alone():
  keys = growth.content_keys(['a', 'b', 'a'])
  assert keys.dtype == np.uint64
  assert keys[0] == keys[2] != keys[1]
  # The first eight bytes of sha256('a'), little end first.
  assert int(keys[0]) == int.from_bytes(
    bytes.fromhex('ca978112ca1bbdca'), 'little'
  )


def test_what_cannot_work_is_named():
  with pytest.raises(ValueError, match='5 items do not fit 2'):
    growth.extend(np.zeros((0, 2)), np.zeros((5, 2)), np.arange(5), 2)
  with pytest.raises(ValueError, match='sinkhorn'):
    growth.extend(
      np.zeros((0, 2)), np.zeros((1, 2)), np.arange(1), 2, 'sinkhorn'
    )
