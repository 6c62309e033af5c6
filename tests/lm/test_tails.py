"""The caches of tails: what is written, and whose it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.lm import tails
from gr2_jax.lm.config import LMConfig

CONFIG = LMConfig(
  vocab_size=64, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=32
)


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('layer', [None, 0, 1])
def test_only_the_slots_of_one_layer_are_written(layer, bf16):
  scan = layer is not None
  config = dataclasses.replace(CONFIG, scan=scan, bf16_matmul=bf16)
  cache = tails.empty(config, 2, 3, 5)
  cache = cache if scan else cache[0]
  # Two slots, keys of float32 transposed.
  shapes = (2, 3, 2, *((2, 8) if bf16 else (8, 2))), (2, 3, 2, 2, 8)
  new = tuple(
    jnp.full(x, n, y.dtype)
    for n, (x, y) in enumerate(zip(shapes, cache, strict=True), 1)
  )
  number = None if layer is None else jnp.int32(layer)
  whole, own = tails.write(cache, new, number, jnp.int32(2), bf16)
  for n, (old, got, part) in enumerate(zip(cache, whole, own, strict=True), 1):
    want = np.zeros(old.shape, np.float32)
    written = want if layer is None else want[layer]
    if n == 1 and not bf16:
      written[..., 2:4] = n
    else:
      written[..., 2:4, :] = n
    assert got.dtype == old.dtype
    np.testing.assert_array_equal(got.astype(np.float32), want)
    np.testing.assert_array_equal(part.astype(np.float32), written)


@pytest.mark.parametrize('scan', [False, True])
def test_reordered_tails_follow_their_parents(scan):
  config = dataclasses.replace(CONFIG, scan=scan)
  tail = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(x.size), x.shape),
    tails.empty(config, 2, 3, 4),
  )
  assert tails.slots(tail) == 4
  parents = np.array([[2, 0, 0], [1, 1, 2]])
  moved = tails.reorder(tail, parents)
  group = 1 if not scan else 2
  for old, new in zip(
    jax.tree.leaves(tail), jax.tree.leaves(moved), strict=True
  ):
    old, new = (np.moveaxis(x, (group - 1, group), (0, 1)) for x in (old, new))
    for q in range(2):
      np.testing.assert_array_equal(new[q], old[q][parents[q]])
