"""Diversity and InfoNCE by hand; float32 arithmetic, so 1e-5 relative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.sid import losses

BOOKS = jnp.array([[[0.0, 0.0], [10.0, 0.0]]])


@pytest.mark.parametrize(
  ('first', 'expected'), [([0.0, 10.0], 1.0), ([0.0, 0.0], 2.0)]
)
def test_diversity_is_one_for_even_and_c_for_one_code(first, expected):
  residuals = jnp.array([[[x + 0.1, 0.0]] for x in first])
  value = losses.diversity(residuals, BOOKS)
  # The far code's share is exp(-1e4): nothing.
  assert float(value) == pytest.approx(expected, abs=1e-5)


def test_diversity_by_hand():
  # One item between two codes: squared distances 1 and 4, scale 1.
  books = jnp.array([[[0.0], [3.0]]])
  share = np.exp([-1.0, -4.0]) / np.exp([-1.0, -4.0]).sum()
  value = losses.diversity(jnp.array([[[1.0]]]), books)
  assert float(value) == pytest.approx(2 * (share**2).sum(), rel=1e-5)


def test_diversity_pushes_towards_the_unused_code():
  residuals = jnp.array([[[1.0, 0.0]], [[2.0, 0.0]]])
  grad = jax.grad(lambda r: losses.diversity(r, BOOKS / 2))(residuals)
  # To descend is to move right, towards (5, 0).
  assert (np.asarray(grad)[:, 0, 0] < 0).all()


def test_info_nce_by_hand():
  anchors = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
  positives = jnp.array([[3.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
  ids = jnp.array([0, 1, 2])
  positive_ids = jnp.array([3, 4, -1])
  value = losses.info_nce(anchors, positives, ids, positive_ids, 0.5)
  # Row 0: cosines 1 and 1; row 1: 0 and 0; the third has none and is none.
  assert float(value) == pytest.approx(np.log(2), rel=1e-5)


def test_info_nce_leaves_out_copies_of_the_positive_and_of_the_anchor():
  anchors = jnp.eye(3)
  positives = jnp.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
  # The second one's positive is the first one's, the third one's is item 0.
  value = losses.info_nce(
    anchors, positives, jnp.array([0, 1, 2]), jnp.array([9, 9, 0]), 1.0
  )
  # Row 0 keeps only its own place, row 1 sees cosines 1 and 0, row 2 0, 0, 0.
  rows = [0.0, np.log(np.e + 1) - 1, np.log(3)]
  assert float(value) == pytest.approx(np.mean(rows), rel=1e-5)


def test_info_nce_without_any_positive_is_zero_and_has_no_nan():
  none = jnp.full(2, -1)
  value, grad = jax.value_and_grad(
    lambda x: losses.info_nce(x, x, jnp.array([0, 1]), none, 1.0)
  )(jnp.eye(2))
  assert float(value) == 0.0
  np.testing.assert_array_equal(grad, 0.0)
