"""The linear listwise model against references of its own objective."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from gr2_jax.rank import linear


def objective(weights, features, mask, target, l2, prior=0.0):
  """The definition, a list at a time."""
  total = 0.0
  for rows, real, place in zip(features, mask, target, strict=True):
    total += scipy.special.log_softmax(rows[real] @ weights)[place]
  return total / len(features) - l2 / 2 * np.sum((weights - prior) ** 2)


def draw(count, width, weights, seed=0, shortest=2):
  """Lists whose true item is a draw from the softmax: Gumbel's maximum."""
  rng = np.random.default_rng(seed)
  features = rng.standard_normal((count, width, len(weights)))
  mask = np.arange(width) < rng.integers(shortest, width + 1, (count, 1))
  utility = features @ weights + rng.gumbel(size=(count, width))
  target = np.where(mask, utility, -np.inf).argmax(axis=1)
  features[~mask] = np.nan  # Not read.
  return features, mask, target


def test_the_slope_at_the_optimum_is_zero():
  lists = draw(60, 5, [1.0, -0.5, 2.0, 0.0])
  weights = linear.fit(*lists, l2=0.01)
  assert weights.dtype == np.float64
  for axis in np.eye(4):
    ahead, behind = (
      objective(weights + step * axis, *lists, 0.01) for step in (1e-4, -1e-4)
    )
    # Central differences, and what rounding leaves of them.
    assert abs(ahead - behind) / 2e-4 < 1e-9
  zero = np.zeros(4)
  start = linear._objective(zero, *_bare(lists), l2=0.01, prior=zero)
  assert np.abs(start[1]).max() > 0.1


def _bare(lists):
  features, mask, target = lists
  return np.where(mask[..., None], features, 0.0), mask, target


def test_gradient_and_curvature_are_those_of_the_definition():
  lists = draw(20, 4, [0.3, -1.0])
  at, prior = np.array([0.7, 0.2]), np.array([-0.5, 1.0])
  value, gradient, hessian = linear._objective(
    at, *_bare(lists), l2=0.1, prior=prior
  )
  minus = lambda weights: -objective(weights, *lists, 0.1, prior)
  assert value == pytest.approx(minus(at), rel=1e-12)
  step = 1e-5
  for i, axis in enumerate(np.eye(2) * step):
    slope = (minus(at + axis) - minus(at - axis)) / (2 * step)
    assert gradient[i] == pytest.approx(slope, abs=1e-8)
    ahead, behind = (
      linear._objective(at + sign * axis, *_bare(lists), l2=0.1, prior=prior)[1]
      for sign in (1, -1)
    )
    np.testing.assert_allclose(
      hessian[i], (ahead - behind) / (2 * step), atol=1e-8
    )


def test_two_columns_by_grid_and_by_another_optimiser():
  lists = draw(80, 4, [1.5, -0.7], seed=2)
  weights = linear.fit(*lists, l2=0.05)
  best = objective(weights, *lists, 0.05)
  grid = np.linspace(-3, 3, 25)
  values = {
    point: objective(np.array(point), *lists, 0.05)
    for point in itertools.product(grid, grid)
  }
  assert best >= max(values.values())
  # The best point of a grid of 0.25 is a neighbour of the optimum.
  nearest = np.array(max(values, key=values.get))
  assert np.abs(nearest - weights).max() < 0.3
  other = scipy.optimize.minimize(
    lambda w: -objective(w, *lists, 0.05), np.zeros(2), method='Nelder-Mead'
  )
  # Nelder and Mead stop at a simplex of 1e-4.
  np.testing.assert_allclose(weights, other.x, atol=1e-3)


def test_a_strong_prior_is_kept_and_a_weak_one_forgotten():
  lists, prior = draw(60, 5, [1.0, -0.5]), np.array([-2.0, 3.0])
  strong = linear.fit(*lists, l2=1e6, prior=prior)
  np.testing.assert_allclose(strong, prior, atol=1e-5)
  weak = linear.fit(*lists, l2=1e-9, prior=prior)
  np.testing.assert_allclose(weak, linear.fit(*lists, l2=1e-9), atol=1e-6)


def test_weights_of_simulated_choices_are_recovered():
  truth = np.array([2.0, -1.0, 0.5, 0.0])
  weights = linear.fit(*draw(20_000, 10, truth), l2=1e-6)
  # Standard errors are about 0.02 at twenty thousand lists.
  np.testing.assert_allclose(weights, truth, atol=0.08)


def test_one_list_by_hand():
  """Two candidates, one column: the choice's odds are a logistic's."""
  features = np.array([[[1.0], [0.0]]])
  mask = np.ones((1, 2), bool)
  weights = linear.fit(features, mask, np.array([0]), l2=0.5)
  # 1 - sigmoid(w) = w / 2.
  assert 1 / (1 + np.exp(weights[0])) == pytest.approx(weights[0] / 2, 1e-9)


def test_full_steps_that_go_too_far_are_halved():
  """Undamped, Newton's method diverges here: its first step goes to 5.6."""
  features = np.zeros((100, 10, 1))
  features[:, 3] = 1.0
  mask = np.ones((100, 10), bool)
  target = np.where(np.arange(100) < 60, 3, 0)
  weights = linear.fit(features, mask, target, l2=1e-9)
  # Odds of 0.6 to 0.4 for one against nine.
  assert weights[0] == pytest.approx(np.log(0.6 / 0.4 * 9), abs=1e-6)


def test_the_penalty_keeps_weights_finite():
  """True items that are told apart perfectly, at the weakest penalty."""
  features = np.tile(np.array([[[1.0], [-1.0]]]), (50, 1, 1))
  mask = np.ones((50, 2), bool)
  found = [
    linear.fit(features, mask, np.zeros(50, int), l2)[0]
    for l2 in (1.0, 1e-3, 1e-9)
  ]
  assert 0 < found[0] < found[1] < found[2] < 100
  # A column that tells nothing, and one that stands twice.
  lists = draw(200, 5, [1.0])
  silent = np.concatenate([lists[0], np.zeros_like(lists[0])], axis=-1)
  alone = linear.fit(*lists)
  np.testing.assert_allclose(
    linear.fit(silent, *lists[1:]), [alone[0], 0], atol=1e-8
  )
  double = linear.fit(np.repeat(lists[0], 2, axis=-1), *lists[1:], l2=2e-3)
  # Two halves share a weight, and its penalty is half as much.
  np.testing.assert_allclose(double, alone[[0, 0]] / 2, atol=1e-8)


def test_padding_and_order_do_not_matter():
  features, mask, target = draw(40, 5, [1.0, -1.0], seed=4)
  plain = linear.fit(features, mask, target)
  rng = np.random.default_rng(0)
  wide = np.pad(features, ((0, 0), (0, 3), (0, 0)))
  padded = linear.fit(wide, np.pad(mask, ((0, 0), (0, 3))), target)
  turned = np.stack([rng.permutation(5) for _ in range(40)])
  rows = np.arange(40)
  moved = linear.fit(
    features[rows[:, None], turned],
    mask[rows[:, None], turned],
    np.argsort(turned, axis=1)[rows, target],
  )
  np.testing.assert_allclose(padded, plain, atol=1e-10)
  np.testing.assert_allclose(moved, plain, atol=1e-10)
  np.testing.assert_array_equal(linear.fit(features, mask, target), plain)


def test_utilities_rank_by_the_weighted_sum():
  features = np.array([[[1, 2], [3, 0], [9, 9]]], np.float32)
  mask = np.array([[True, True, False]])
  found = linear.utilities(np.array([2.0, -1.0]), features, mask)
  np.testing.assert_array_equal(found, [[0, 6, -np.inf]])
  with pytest.raises(ValueError, match=r'3 weights .*\(1, 3, 2\)'):
    linear.utilities(np.ones(3), features, mask)


ONE = np.zeros((1, 2, 1))
MASK = np.array([[True, False]])


@pytest.mark.parametrize(
  'given, message',
  [
    ((ONE[:0], MASK[:0], np.zeros(0, int)), 'No list'),
    ((ONE, MASK, np.array([-1])), 'target of list 0 is place -1'),
    ((ONE, MASK, np.array([1])), 'target of list 0 is place 1'),
    ((ONE, MASK, np.array([2])), 'target of list 0 is place 2'),
    ((ONE, MASK[:, :1], np.array([0])), 'do not fit'),
    ((ONE * np.nan, MASK, np.array([0])), 'not finite'),
    ((ONE, MASK, np.array([0]), 0.0), 'l2 = 0.0'),
    ((ONE, MASK, np.array([0]), np.nan), 'l2 = nan'),
  ],
)
def test_what_cannot_be_fitted_is_refused(given, message):
  with pytest.raises(ValueError, match=message):
    linear.fit(*given)
