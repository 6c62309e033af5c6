"""Rewards: numbers by hand, and of one positive against scalar Python."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.rl import rewards


def _slow(before, after, valid, k, alpha, invalid, conditional):
  """GR2, stage 3, word by word."""
  if not valid:
    return invalid
  promotion = (before - after) / k
  if not conditional:
    return promotion + alpha
  if promotion > 0 or (before == 1 and after == 1):
    return promotion + alpha
  return promotion


def test_by_hand():
  before = jnp.array([[5], [1]])
  after = jnp.array([[2, 5, 9, 1], [1, 2, 10, 1]])
  valid = jnp.array([[True, True, True, False], [True] * 4])
  # 5 -> 2 is 3/10 and the bonus; 5 -> 5 gets nothing; 5 -> 9 loses 4/10.
  expected = [[0.5, 0.0, -0.4, -1.0], [0.2, -0.1, -0.9, 0.2]]
  got = rewards.conditional(before, after, valid, 10, alpha=0.2, invalid=-1.0)
  np.testing.assert_allclose(got, expected, atol=1e-6)
  expected = [[0.5, 0.2, -0.2, -1.0], [0.2, 0.1, -0.7, 0.2]]
  got = rewards.rank_promotion(
    before, after, valid, 10, alpha=0.2, invalid=-1.0
  )
  np.testing.assert_allclose(got, expected, atol=1e-6)
  assert got.dtype == jnp.float32


def test_copying_the_input_earns_nothing_unless_it_was_right():
  ranks = jnp.arange(1, 11)
  copied = rewards.conditional(ranks, ranks, True, 10, alpha=0.2, invalid=-1.0)
  np.testing.assert_allclose(copied, [0.2] + [0.0] * 9, atol=1e-6)
  hacked = rewards.rank_promotion(
    ranks, ranks, True, 10, alpha=0.2, invalid=-1.0
  )
  np.testing.assert_allclose(hacked, 0.2, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_scalar_reference(data):
  k = data.draw(st.integers(2, 12))
  alpha = data.draw(st.sampled_from([0.0, 0.2, 0.5]))
  invalid = data.draw(st.sampled_from([-1.0, 0.0]))
  rows = data.draw(
    st.lists(
      st.tuples(st.integers(1, k), st.integers(1, k), st.booleans()),
      min_size=1,
      max_size=8,
    )
  )
  columns = (np.array(column) for column in zip(*rows, strict=True))
  before, after, valid = columns
  for conditional, function in (
    (True, rewards.conditional),
    (False, rewards.rank_promotion),
  ):
    expected = [_slow(*row, k, alpha, invalid, conditional) for row in rows]
    got = function(before, after, valid, k, alpha=alpha, invalid=invalid)
    # float32 arithmetic on numbers of order one.
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_short_lists_are_measured_by_their_own_length():
  got = rewards.rank_promotion(
    jnp.array([4, 4]),
    jnp.array([1, 1]),
    True,
    jnp.array([4, 10]),
    alpha=0.0,
    invalid=-1.0,
  )
  np.testing.assert_allclose(got, [0.75, 0.3], atol=1e-6)


def test_overlong_counts_generated_tokens():
  lengths = jnp.array([[1, 80, 84, 90, 100]])
  got = rewards.overlong(lengths, 100, 20)
  np.testing.assert_allclose(got, [[0, 0, -0.2, -0.5, -1.0]], atol=1e-6)


@pytest.mark.parametrize('buffer', [0, 100, 101, -1])
def test_overlong_buffer_must_lie_inside(buffer):
  with pytest.raises(ValueError, match='overlong_buffer'):
    rewards.overlong(jnp.array([1]), 100, buffer)


def _graded(*lists):
  """Grades and places of lists with one answer each: [N, 1, K] twice, mask."""
  grades, places = (
    np.array(part)[:, None] for part in zip(*lists, strict=True)
  )
  return jnp.array(grades), jnp.array(places), jnp.ones(grades.shape, bool)


def test_auc_by_hand():
  args = _graded(
    # Answer 1 0 2 3: of 2 x 2 pairs 1-0, 1-3 and 2-3 are right, 2-0 is not.
    ([0, 2, 1, 0], [1, 0, 2, 3]),
    ([0, 2, 1, 0], [2, 1, 0, 3]),  # Grades of positives do not matter.
    ([0, 2, 1, 0], [0, 3, 2, 1]),  # Both positives last.
    ([0, 0, 0, 1], [3, 2, 1, 0]),
  )
  got = rewards.auc(*args)
  np.testing.assert_array_equal(got, [[0.75], [1.0], [0.0], [1.0]])
  assert got.dtype == jnp.float32


def test_ndcg_by_hand():
  args = _graded(
    # Gains 0 3 1 0; the answer 1 2 0 3 is ideal, 2 1 .. gives 1 + 3 / log2(3).
    ([0, 2, 1, 0], [2, 0, 1, 3]),
    ([0, 2, 1, 0], [2, 1, 0, 3]),
    ([0, 0, 0, 1], [0, 1, 2, 3]),
  )
  third = 1 / np.log2(3)
  expected = [1.0, (1 + 3 * third) / (3 + third), 1 / np.log2(5)]
  # float32 sums of a few terms of order one.
  np.testing.assert_allclose(rewards.ndcg(*args)[:, 0], expected, atol=1e-6)


def test_short_graded_lists_and_one_sided_ones():
  grades = jnp.array([[[0, 2, 1, 0]], [[1, 1, 2, 2]], [[0, 0, 0, 0]]])
  places = jnp.array([[[2, 1, 0, 4]], [[0, 1, 2, 3]], [[0, 1, 2, 3]]])
  mask = jnp.array([[[True, True, True, False]], [[True] * 4], [[True] * 4]])
  # Without padding the first is grades 0 2 1, answered in the order 2 1 0.
  np.testing.assert_array_equal(
    rewards.auc(grades, places, mask)[:, 0], [1.0, 0.0, 0.0]
  )
  third = 1 / np.log2(3)
  got = rewards.ndcg(grades, places, mask)[:, 0]
  np.testing.assert_allclose(got[0], (1 + 3 * third) / (3 + third), atol=1e-6)
  assert got[2] == 0


def test_the_identity_rule_by_hand():
  """R = R_rank + alpha, but alpha alone for copying an order with a flaw."""
  # Right between positives and negatives; then only between the positives.
  grades = jnp.array([[[1, 0, 2]], [[1, 2, 0]], [[2, 1, 0]]])
  mask = jnp.ones((3, 1, 3), bool)
  identity = jnp.array([[True, False], [True, False], [True, False]])
  copied = rewards.copies_a_flaw(grades, identity, mask)
  np.testing.assert_array_equal(
    copied, [[True, False], [False] * 2, [False] * 2]
  )
  rank = jnp.array([[0.5, 0.5], [0.7, 1.0], [1.0, 0.2]])
  valid = jnp.array([[True, True], [True, False], [True, True]])
  got = rewards.graded(rank, copied, valid, 0.2, -1.0)
  np.testing.assert_allclose(
    got, [[0.2, 0.7], [0.9, -1.0], [1.2, 0.4]], atol=1e-6
  )
  got = rewards.graded(rank, copied, valid, 0.2, 0.0)
  assert got[1].tolist() == pytest.approx([0.9, 0.0])
