"""Plackett-Luce against plain Python: products, draws, entropies, slopes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.rank import plackett_luce

UTILITIES = [0.3, -1.2, 1.7, 0.0]
ORDERS = list(itertools.permutations(range(4)))

log_probs = jax.jit(plackett_luce.log_probs)


def _choices(utilities, order):
  """Returns the probabilities of what is left at each place."""
  for place in range(len(order)):
    odds = [math.exp(utilities[i]) for i in order[place:]]
    yield [x / sum(odds) for x in odds]


def _probability(utilities, order):
  return math.prod(left[0] for left in _choices(utilities, order))


def _batch(utilities, mask, orders):
  """Scores many orders of one list."""
  return jax.device_get(
    log_probs(
      np.array([utilities], np.float32),
      np.array([mask]),
      np.array(orders, np.int32),
    )
  )


def test_all_orders_of_four():
  logps, entropies = _batch(UTILITIES, [True] * 4, ORDERS)
  assert logps.shape == entropies.shape == (24, 4)
  np.testing.assert_allclose(np.exp(logps.sum(-1)).sum(), 1, rtol=1e-6)
  for order, own, entropy in zip(ORDERS, logps, entropies, strict=True):
    left = list(_choices(UTILITIES, order))
    np.testing.assert_allclose(
      own, [math.log(p[0]) for p in left], rtol=1e-5, atol=1e-6
    )
    want = [-sum(x * math.log(x) for x in p) for p in left]
    np.testing.assert_allclose(entropy, want, rtol=1e-5, atol=1e-6)
    assert own[3] == 0  # The last one that is left is no choice.


def test_entropies_are_those_of_the_whole_ranking():
  """The chain rule: they add up, in the mean, to the entropy of the orders."""
  logps, entropies = _batch(UTILITIES, [True] * 4, ORDERS)
  total = logps.sum(-1).astype(np.float64)
  np.testing.assert_allclose(
    (np.exp(total) * entropies.sum(-1)).sum(),
    -(np.exp(total) * total).sum(),
    rtol=1e-5,
  )


@pytest.mark.parametrize('padding', [0.0, 1e9, -1e9, np.inf, np.nan])
def test_padding_changes_nothing(padding):
  """A list of three among four slots, whatever its padding holds."""
  three = list(itertools.permutations(range(3)))
  orders = [(*order, 3) for order in three]
  utilities = [*UTILITIES[:3], padding]
  logps, entropies = _batch(utilities, [True] * 3 + [False], orders)
  want = _batch(UTILITIES[:3], [True] * 3, three)
  np.testing.assert_allclose(logps[:, :3], want[0], rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(entropies[:, :3], want[1], rtol=1e-6, atol=1e-6)
  assert not logps[:, 3].any() and not entropies[:, 3].any()
  np.testing.assert_allclose(np.exp(logps.sum(-1)).sum(), 1, rtol=1e-6)


def test_gradients_by_finite_differences():
  order = np.array([2, 0, 1, 3], np.int32)
  weights = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
  mask = np.array([True, True, True, False])

  def total(utilities):
    logps, _ = plackett_luce.log_probs(utilities, mask, order)
    return (logps * weights).sum()

  found = np.asarray(jax.jit(jax.grad(total))(jnp.array(UTILITIES)))

  def slow(utilities):
    chosen = [math.log(p[0]) for p in _choices(utilities, order[:3])]
    own = weights.tolist()[:3]  # In float64.
    return sum(w * x for w, x in zip(own, chosen, strict=True))

  for i in range(3):
    up, down = list(UTILITIES), list(UTILITIES)
    up[i], down[i] = up[i] + 1e-5, down[i] - 1e-5
    want = (slow(up) - slow(down)) / 2e-5
    np.testing.assert_allclose(found[i], want, rtol=1e-4, atol=1e-5)
  assert found[3] == 0


def test_draws_have_these_probabilities():
  count = 24_000
  utilities = np.array([UTILITIES, UTILITIES[::-1]], np.float32)
  mask = np.array([[True] * 4, [True, True, True, False]])
  drawn = jax.jit(plackett_luce.draw, static_argnums=3)(
    jax.random.key(0), utilities, mask, count
  )
  drawn = np.asarray(drawn)
  assert drawn.shape == (2, count, 4) and drawn.dtype == np.int32
  assert (drawn[1, :, 3] == 3).all()
  for row, size in ((0, 4), (1, 3)):
    own = utilities[row].tolist()
    found, counts = np.unique(drawn[row, :, :size], axis=0, return_counts=True)
    assert len(found) == math.factorial(size)
    for order, seen in zip(found.tolist(), counts, strict=True):
      chance = _probability(own, order)
      # Four standard deviations of a binomial share: of 30 shares one in 500
      # seeds misses it.
      bound = 4 * math.sqrt(chance * (1 - chance) / count)
      assert abs(seen / count - chance) < bound, (order, chance)


def test_each_ranking_may_have_utilities_of_its_own():
  """The first is sure of one order, the second of the other."""
  sure = np.array([[[0, 200, 400], [400, 200, 0]]], np.float32)
  mask = np.ones((1, 3), bool)
  for seed in range(3):
    drawn = plackett_luce.draw(jax.random.key(seed), sure, mask, 2)
    np.testing.assert_array_equal(drawn, [[[2, 1, 0], [0, 1, 2]]])
  logps, _ = plackett_luce.log_probs(sure, mask[:, None], drawn)
  np.testing.assert_allclose(logps, 0, atol=1e-6)


def test_lists_of_a_batch_are_drawn_apart():
  utilities = np.zeros((8, 6), np.float32)
  drawn = plackett_luce.draw(
    jax.random.key(1), utilities, np.ones((8, 6), bool), 2
  )
  assert len(np.unique(np.asarray(drawn).reshape(16, 6), axis=0)) > 10


def test_the_sort_is_stable_with_padding_last():
  utilities = np.array([[1, 3, 1, 3], [9, 5, 0, 7]], np.float32)
  mask = np.array([[True] * 4, [False, True, True, False]])
  np.testing.assert_array_equal(
    plackett_luce.sort(utilities, mask), [[1, 3, 0, 2], [1, 2, 0, 3]]
  )
