"""DAPO: advantages and loss by hand, by slow references, its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.rl import dapo

# --- Advantages.


def test_advantages_by_hand():
  rewards = jnp.array([[1.0, 3.0], [0.5, 0.5], [-1.0, 0.2]])
  # Mean 2, standard deviation 1; no variance; mean -0.4, deviation 0.6.
  expected = [[-1.0, 1.0], [0.0, 0.0], [-1.0, 1.0]]
  np.testing.assert_allclose(dapo.group_advantage(rewards), expected, atol=1e-5)
  expected = [[-1.0, 1.0], [0.0, 0.0], [-0.6, 0.6]]
  got = dapo.group_advantage(rewards, norm='none')
  np.testing.assert_allclose(got, expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
  st.lists(
    st.lists(st.integers(-9, 12), min_size=4, max_size=4),
    min_size=1,
    max_size=5,
  )
)
def test_advantages_equal_numpy_group_by_group(tenths):
  rewards = np.array(tenths, np.float32) / 10
  got = np.asarray(dapo.group_advantage(rewards))
  for row, advantage in zip(rewards, got, strict=True):
    if row.max() == row.min():
      np.testing.assert_array_equal(advantage, 0)
      continue
    expected = (row - row.mean()) / (row.std() + 1e-6)
    # The smallest deviation here is 0.04, a thousand roundings or more.
    np.testing.assert_allclose(advantage, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(advantage.mean(), 0, atol=1e-4)
    np.testing.assert_allclose(advantage.std(), 1, atol=1e-3)


def test_a_group_of_one_is_refused():
  with pytest.raises(ValueError, match='G >= 2'):
    dapo.group_advantage(jnp.ones((3, 1)))
  with pytest.raises(ValueError, match='G >= 2'):
    dapo.group_advantage(jnp.ones((3,)))


def test_unknown_norm_is_named():
  with pytest.raises(ValueError, match='var'):
    dapo.group_advantage(jnp.ones((3, 2)), norm='var')


# --- The loss.


def _slow(logps, old, advantages, mask, low, high):
  """Token by token; returns the loss sum and the clipped tokens."""
  total, clipped = 0.0, 0
  for q, g, t in zip(*np.nonzero(mask), strict=True):
    ratio = np.exp(float(logps[q, g, t]) - float(old[q, g, t]))
    gain = float(advantages[q, g])
    bounded = min(max(ratio, 1 - low), 1 + high)
    total -= min(ratio * gain, bounded * gain)
    clipped += bounded * gain < ratio * gain
  return total, clipped


def test_by_hand():
  ratios = jnp.array([[[1.5, 0.5, 1.1], [1.5, 0.5, 9.0]]])
  logps, old = jnp.log(ratios), jnp.zeros((1, 2, 3))
  advantages = jnp.array([[2.0, -1.0]])
  mask = jnp.array([[[True, True, True], [True, True, False]]])
  total, count, metrics = dapo.dapo_loss(logps, old, advantages, mask)
  # Gains: 1.28 * 2, 0.5 * 2, 1.1 * 2; then -1.5, and 0.8 * -1 (clipped).
  np.testing.assert_allclose(total, -(2.56 + 1.0 + 2.2 - 1.5 - 0.8), rtol=1e-6)
  assert count == 5
  clipped, tokens = metrics['clip_fraction']
  assert (clipped, tokens) == (2, 5)
  np.testing.assert_allclose(metrics['ratio'][0], 5.1, rtol=1e-6)
  low, high = dapo.ratio_range(logps, old, mask)
  np.testing.assert_allclose([low, high], [0.5, 1.5], rtol=1e-6)


def test_clip_is_higher_above():
  # The same distance above and below one: only the lower side is clipped.
  logps = jnp.log(jnp.array([[[1.25], [0.75]]]))
  advantages = jnp.array([[1.0, -1.0]])
  mask = jnp.ones((1, 2, 1), bool)

  def loss(x):
    return dapo.dapo_loss(x, jnp.zeros_like(x), advantages, mask)[0]

  gradient = jax.grad(loss)(logps)
  np.testing.assert_allclose(gradient[0, :, 0], [-1.25, 0.0], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_equals_the_slow_reference(seed, low, high):
  rng = np.random.default_rng(seed)
  logps = -rng.exponential(1.0, (2, 3, 5)).astype(np.float32)
  old = logps + rng.normal(0, 0.4, logps.shape).astype(np.float32)
  advantages = rng.normal(size=(2, 3)).astype(np.float32)
  mask = rng.random(logps.shape) < 0.7
  total, count, metrics = dapo.dapo_loss(
    logps, old, advantages, mask, eps_low=low, eps_high=high
  )
  expected, clipped = _slow(logps, old, advantages, mask, low, high)
  # Sums of at most 30 float32 terms of order one.
  np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-5)
  assert count == mask.sum()
  assert abs(int(metrics['clip_fraction'][0]) - clipped) <= 1


def test_masked_places_are_never_read():
  nan = jnp.nan
  mask = jnp.array([[[True, False], [True, False]]])
  advantages = jnp.array([[1.0, -1.0]])
  old = jnp.array([[[-1.0, nan], [-1.0, nan]]])

  def loss(x):
    return dapo.dapo_loss(x, old, advantages, mask)[0]

  logps = jnp.array([[[-1.0, nan], [-1.0, nan]]])
  value, gradient = jax.value_and_grad(loss)(logps)
  assert value == 0
  np.testing.assert_array_equal(gradient[0], [[-1, 0], [1, 0]])


def test_sums_of_parts_are_the_sum_of_the_whole():
  rng = np.random.default_rng(0)
  arrays = [rng.normal(size=(4, 2, 6)).astype(np.float32) for _ in range(2)]
  advantages = rng.normal(size=(4, 2)).astype(np.float32)
  # Parts of unequal token counts: means of parts would not add up.
  mask = np.arange(6)[None, None] < np.array([1, 6, 2, 5])[:, None, None]
  mask = np.broadcast_to(mask, (4, 2, 6))
  whole = dapo.dapo_loss(*arrays, advantages, mask)
  parts = [
    dapo.dapo_loss(
      *(a[i : i + 1] for a in arrays), advantages[i : i + 1], mask[i : i + 1]
    )
    for i in range(4)
  ]
  np.testing.assert_allclose(sum(p[0] for p in parts), whole[0], rtol=1e-5)
  assert sum(p[1] for p in parts) == whole[1]


def test_a_weightless_group_leaves_loss_and_count():
  rng = np.random.default_rng(1)
  logps = rng.normal(size=(2, 2, 3)).astype(np.float32)
  old = np.zeros_like(logps)
  advantages = np.ones((2, 2), np.float32)
  mask = np.ones((2, 2, 3), bool)
  mask[1] = False
  both = dapo.dapo_loss(logps, old, advantages, mask)
  one = dapo.dapo_loss(logps[:1], old[:1], advantages[:1], mask[:1])
  np.testing.assert_allclose(both[0], one[0], rtol=1e-6)
  assert both[1] == one[1] == 6


def test_empty_mask_gives_zero_over_zero_tokens():
  zeros = jnp.zeros((1, 2, 3))
  mask = jnp.zeros((1, 2, 3), bool)
  total, count, _ = dapo.dapo_loss(zeros, zeros, jnp.ones((1, 2)), mask)
  assert total == 0 and count == 0
  low, high = dapo.ratio_range(zeros, zeros, mask)
  assert low == jnp.inf and high == 0


def test_shapes_are_checked():
  zeros = jnp.zeros((1, 2, 3))
  mask = jnp.ones((1, 2, 3), bool)
  with pytest.raises(ValueError, match='must share one shape'):
    dapo.dapo_loss(zeros, zeros[..., :2], jnp.ones((1, 2)), mask)
  with pytest.raises(ValueError, match='advantages'):
    dapo.dapo_loss(zeros, zeros, jnp.ones((1, 3)), mask)


def test_sequence_level_by_hand():
  """Means over an answer's tokens, then over the answers that have any."""
  ratios = jnp.array([[[1.1, 0.9, 1.0], [1.5, 9.0, 9.0], [9.0, 9.0, 9.0]]])
  advantages = jnp.array([[2.0, -1.0, 5.0]])
  mask = jnp.array([[[1, 1, 1], [1, 0, 0], [0, 0, 0]]], bool)
  total, count, metrics = dapo.dapo_loss(
    jnp.log(ratios), jnp.zeros((1, 3, 3)), advantages, mask, level='sequence'
  )
  # Answers of three tokens, of one, and of none.
  np.testing.assert_allclose(total, -(2.0 * (1.1 + 0.9 + 1.0) / 3 - 1.5))
  assert count == 2
  # Metrics stay those of tokens.
  assert metrics['ratio'][1] == 4
  with pytest.raises(ValueError, match="'token' or 'sequence'"):
    dapo.reduce(ratios, mask, 'answer')


def test_sequence_level_sums_of_parts_are_the_sum_of_the_whole():
  rng = np.random.default_rng(2)
  values = rng.normal(size=(4, 2, 6)).astype(np.float32)
  mask = np.arange(6) < np.array([[1, 6], [2, 0], [5, 5], [0, 0]])[..., None]
  whole = dapo.reduce(values, mask, 'sequence')
  parts = [
    dapo.reduce(values[i : i + 1], mask[i : i + 1], 'sequence')
    for i in range(4)
  ]
  np.testing.assert_allclose(sum(p[0] for p in parts), whole[0], rtol=1e-5)
  assert sum(p[1] for p in parts) == whole[1] == 5


def test_importance_weights_by_hand():
  old = jnp.log(jnp.array([[[0.5, 0.3, 0.2]]]))
  sampled = jnp.log(jnp.array([[[0.25, 0.6, 0.1]]])).at[0, 0, 2].set(jnp.nan)
  mask = jnp.array([[[True, True, False]]])
  weights = dapo.truncated_weights(old, sampled, mask, 1.5)
  # Ratios of 2, capped, and of 1/2; nothing is read outside of the mask.
  np.testing.assert_allclose(weights, [[[1.5, 0.5, 1.0]]], rtol=1e-6)
  total, count, _ = dapo.dapo_loss(
    old, old, jnp.array([[2.0]]), mask, weights=weights
  )
  np.testing.assert_allclose(total, -2.0 * (1.5 + 0.5), rtol=1e-6)
  assert count == 2
