"""Masks, against plain loops; attention in blocks, against the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.lm import attention


@pytest.mark.parametrize('packed', [False, True])
def test_causal_mask(packed):
  segments = np.array([[1, 1, 2, 2, 2, 0, 0], [3, 1, 1, 1, 0, 0, 0]])
  rows, length = segments.shape
  mask = attention.causal_mask(length, segments if packed else None)
  assert mask.shape == (rows if packed else 1, length, length)
  places = np.array([4, 2])
  single = attention.causal_mask(length, segments if packed else None, places)
  assert single.shape == (rows, 1, length)
  for b in range(rows):
    for t in range(length):
      for s in range(length):
        same = segments[b, t] == segments[b, s] or not packed
        want = s <= t and same
        assert mask[b if packed else 0, t, s] == want
        if t == places[b]:
          assert single[b, 0, s] == want


@pytest.mark.parametrize('index', [0, 3])
def test_tail_mask(index):
  mask = np.asarray(attention.tail_mask(4, 8, index))
  assert mask.shape == (4, 8)
  for t in range(4):
    for s in range(8):
      assert mask[t, s] == (s <= index + t)


@pytest.mark.parametrize('length', [255, 256, 300])
def test_long_rows_are_attended_in_blocks(length):
  # In float64, so that only rounding to float32 separates the two.
  rng = np.random.default_rng(length)
  q = rng.standard_normal((2, length, 4, 8))
  k, v = (rng.standard_normal((2, length, 2, 8)) for _ in range(2))
  segments = rng.integers(0, 3, (2, length)).cumsum(1) // 40
  mask = np.asarray(attention.causal_mask(length, segments))
  scores = np.einsum('btnh,bsnh->bnts', q, k.repeat(2, 2))
  weights = np.exp(scores) * mask[:, None]
  weights /= weights.sum(-1, keepdims=True)
  want = np.einsum('bnts,bsnh->btnh', weights, v.repeat(2, 2))

  def total(q, k, v):
    out = attention.attend(q, k, v, jnp.asarray(mask), False)
    return (out * want).sum(), out

  given = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
  grads, out = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*given)
  # Float32: sums of 300 products.
  np.testing.assert_allclose(out, want, atol=2e-5)
  # Values get what the weights give them.
  got = np.einsum('bnts,btnh->bsnh', weights, want)
  got = got.reshape(2, length, 2, 2, 8).sum(3)
  np.testing.assert_allclose(grads[2], got, rtol=1e-4, atol=1e-4)
