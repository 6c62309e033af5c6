"""Mini-batches of rankings: every list once, its arrays together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.rl import rankings
from tests.rl import tiny


def _drawn(mesh, with_words):
  rng = np.random.default_rng(0)
  make = lambda *shape: rng.normal(size=(tiny.Q, *shape)).astype(np.float32)
  words = None
  if with_words:
    words = rankings.Words(
      make(4, 8), make(4, 8) > 0, make(4, 8, 5), make(4, 8), make(4, 8)
    )
  whole = rankings.Rankings(
    lists=tiny.ranked_set().batch(np.arange(tiny.Q)),
    words=words,
    order=np.argsort(make(4, 3), axis=-1).astype(np.int32),
    old_logps=make(4, 3),
    mask=make(4, 3) > 0,
    advantages=make(4),
    weight=np.arange(tiny.Q, dtype=np.float32),
  )
  return sharding.shard_batch(mesh, whole)


@pytest.mark.parametrize('with_words', [False, True])
@pytest.mark.parametrize('devices', [1, 8])
def test_every_second_list(devices, with_words, mesh1, mesh8):
  mesh = {1: mesh1, 8: mesh8}[devices]
  whole = _drawn(mesh, with_words)
  with sharding.use(mesh, sharding.TRAIN_RULES):
    parts = [rankings.part(whole, jnp.int32(i), 2) for i in range(2)]
  for i, part in enumerate(parts):
    want = jax.tree.map(lambda x, i=i: x[i::2], whole)
    jax.tree.map(np.testing.assert_array_equal, want, part)
    assert part.lists.row.tolist() == list(range(i, tiny.Q, 2))
