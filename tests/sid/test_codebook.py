"""Codebooks: hand-computed quantisation, clustering, EMA and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.sid import codebook

quantise = jax.jit(codebook.quantise)
nearest = jax.jit(codebook.nearest)


def test_quantise_by_hand():
  books = jnp.array([[[0.0, 0.0], [4.0, 0.0]], [[0.0, 1.0], [-1.0, 0.0]]])
  codes, chosen, residuals = quantise(
    books, jnp.array([[3.0, 0.0], [0.0, 2.0]])
  )
  # (3, 0) is nearest to (4, 0); (-1, 0) is left over, a code of its own.
  np.testing.assert_array_equal(codes, [[1, 1], [0, 0]])
  np.testing.assert_array_equal(chosen.sum(1), [[3.0, 0.0], [0.0, 1.0]])
  np.testing.assert_array_equal(residuals[0], [[3.0, 0.0], [-1.0, 0.0]])


def test_the_first_of_equally_near_codes_wins():
  book = jnp.array([[9.0], [1.0], [-1.0], [1.0]])
  np.testing.assert_array_equal(
    codebook.nearest(book, jnp.array([[0.0], [1.0], [-3.0], [7.0]])),
    [1, 1, 2, 0],
  )


def test_ema_by_hand():
  book = jnp.array([[1.0], [5.0], [9.0]])
  x = jnp.array([[2.0], [4.0], [7.0]])
  moved = jax.jit(codebook.ema_update)(book, x, jnp.array([0, 0, 1]), 0.9)
  # 0.9 * 1 + 0.1 * 3; 0.9 * 5 + 0.1 * 7; nothing assigned: unchanged.
  np.testing.assert_allclose(moved[:, 0], [1.2, 5.2, 9.0], rtol=1e-6)


def test_kmeans_finds_separate_clusters():
  rng = np.random.default_rng(0)
  centres = 10 * np.eye(6, 4) - 5 * (np.arange(6) == 5)[:, None]
  x = np.repeat(centres, 30, 0) + 0.1 * rng.normal(size=(180, 4))
  (book,) = codebook.residual_kmeans(
    jax.random.key(1), jnp.float32(x), 1, 6, 10
  )
  found = nearest(book, jnp.float32(x)).reshape(6, 30)
  assert (found == found[:, :1]).all()
  assert len(set(found[:, 0].tolist())) == 6
  # Means of 30 vectors, summed in float32.
  np.testing.assert_allclose(
    book[found[:, 0]], x.reshape(6, 30, 4).mean(1), atol=1e-5
  )


def test_kmeans_plus_plus_draws_vectors_and_no_twins():
  x = jnp.repeat(jnp.arange(8.0)[:, None], 5, 0)
  book = jax.jit(codebook.kmeans_plus_plus, static_argnums=2)(
    jax.random.key(0), x, 8
  )
  # A vector at distance 0 from the book is never drawn, so all 8 are found.
  assert sorted(book[:, 0].tolist()) == list(range(8))


def test_residual_kmeans_reduces_the_error_level_by_level():
  z = jax.random.normal(jax.random.key(0), (400, 6))
  books = codebook.residual_kmeans(jax.random.key(1), z, 3, 16, 10)
  _, chosen, _ = quantise(books, z)
  left = z[:, None] - jnp.cumsum(chosen, 1)
  errors = (left**2).sum(-1).mean(0)
  before = float((z**2).sum(-1).mean())
  for error in errors.tolist():
    # A normal vector in 6 dimensions and 16 codes: about 0.55 remains.
    assert error < 0.7 * before
    before = error


def test_statistics_by_hand():
  counts = codebook.usage(np.array([[0, 2], [1, 2], [0, 2], [1, 2]]), 3)
  np.testing.assert_array_equal(counts, [[2, 2, 0], [0, 0, 4]])
  assert codebook.perplexity(counts) == pytest.approx([2.0, 1.0])
  assert codebook.dead_codes(counts) == [1, 2]
