"""The decoder: causality, packing, shared prompts, many devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig

TINY = LMConfig(
  vocab_size=64, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=32
)
# The products are the same sums in other orders; float32 rounds at 6e-8 and
# logits are of size 1.
EXACT = dict(rtol=0, atol=2e-5)
# Operands are rounded to 8 bits of mantissa (4e-3 relative), twice a layer.
ROUGH = dict(rtol=0, atol=3e-2)


@functools.cache
def _params(config):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  params = decoder.init(config, mesh, sharding.TRAIN_RULES, jax.random.key(0))
  # Large enough for the layers to matter.
  params['embedding'] = params['embedding'] * 20
  return jax.device_get(params)


def _tokens(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 64, shape).astype(np.int32)


def _apply(config, method=None):
  return jax.jit(
    functools.partial(decoder.Decoder(config).apply, method=method)
  )


def _grouped(config, prompts, valid, tails, stepwise):
  """Logits [Q, G, T, V] by prefill and extend."""
  variables = {'params': _params(config)}
  queries, group, length = tails.shape
  _, kv = _apply(config, 'prefill')(variables, prompts, valid)
  positions = np.broadcast_to(
    valid.sum(-1)[:, None, None] + np.arange(length)[None, None], tails.shape
  )
  extend = _apply(config, 'extend')
  if not stepwise:
    hidden, _ = extend(variables, tails, positions, kv, valid)
  else:
    cache = decoder.init_tail(config, queries, group, length + 1)
    parts = []
    for t in range(length):
      out, cache = extend(
        variables,
        tails[:, :, t : t + 1],
        positions[:, :, t : t + 1],
        kv,
        valid,
        cache,
        jnp.int32(t),
      )
      parts.append(out)
    hidden = jnp.concatenate(parts, 2)
  return _apply(config, 'unembed')(variables, hidden)


@pytest.mark.parametrize('scan', [False, True])
@pytest.mark.parametrize('stepwise', [False, True])
def test_prefill_and_extend_equal_a_pass_over_the_concatenation(scan, stepwise):
  config = dataclasses.replace(TINY, scan=scan)
  prompts, tails = _tokens(2, 6), _tokens(2, 3, 4, seed=1)
  valid = np.arange(6)[None] < np.array([[6], [4]])
  got = _grouped(config, prompts, valid, tails, stepwise)
  full = _apply(config)
  for q, n in enumerate(valid.sum(-1)):
    rows = np.concatenate(
      [np.broadcast_to(prompts[q, None, :n], (3, n)), tails[q]], 1
    )
    want = full({'params': _params(config)}, rows)[:, n:]
    np.testing.assert_allclose(got[q], want, **EXACT)
