"""The transport plan against linear programming, and what it parts."""

import numpy as np
import pytest
import scipy.optimize

from gr2_jax.sid import assign, sinkhorn


def test_the_plan_has_even_margins():
  cost = np.random.default_rng(0).random((5, 8))
  plan = sinkhorn.plan(cost, iterations=2000)
  np.testing.assert_allclose(plan.sum(1), 1 / 5, rtol=1e-9)
  # Converged, not exact: Sinkhorn ends on the rows.
  np.testing.assert_allclose(plan.sum(0), 1 / 8, rtol=1e-6)


def test_little_entropy_gives_the_optimal_assignment():
  cost = np.random.default_rng(1).random((6, 6))
  rows, columns = scipy.optimize.linear_sum_assignment(cost)
  plan = sinkhorn.plan(cost, epsilon=0.002, iterations=20_000)
  np.testing.assert_array_equal(plan.argmax(1)[rows], columns)


def test_large_distances_do_not_underflow():
  plan = sinkhorn.plan(np.array([[0.0, 1e6], [1e6, 0.0]]), epsilon=1e-3)
  np.testing.assert_allclose(plan, np.eye(2) / 2, atol=1e-12)


def test_the_nearest_keeps_its_code_and_only_collisions_move():
  book = np.array([[0.0], [1.0], [5.0]])
  codes = np.array([[0, 0], [0, 0], [1, 2], [1, 1]])
  last = np.array([[0.4], [0.1], [5.0], [0.9]])
  parted = sinkhorn.last_level(codes, last, book)
  np.testing.assert_array_equal(parted, [[0, 1], [0, 0], [1, 2], [1, 1]])


@pytest.mark.parametrize('crowd', [4, 7])
def test_as_distinct_as_the_codes_allow(crowd):
  rng = np.random.default_rng(crowd)
  codes = np.zeros((crowd, 3), int)
  raw, sids = assign.assign(
    codes,
    4,
    seed=0,
    last_level='sinkhorn',
    last=rng.normal(size=(crowd, 2)),
    book=rng.normal(size=(4, 2)),
  )
  assert len(np.unique(raw, axis=0)) == 4
  assert assign.collisions(sids) == 0
