"""Every switch of the decoder against a slow reference in float64."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.lm import decoder, lora
from gr2_jax.lm.config import LMConfig

BASE = LMConfig(
  vocab_size=64, width=16, layers=2, heads=4, kv_heads=2, head_dim=6, mlp_dim=20
)
SWITCHES = {
  'none': {},
  'no_qk_norm': dict(qk_norm=False),
  'qkv_bias': dict(qkv_bias=True),
  'out_bias': dict(out_bias=True),
  'mlp_bias': dict(mlp_bias=True),
  'untied': dict(tie_embeddings=False),
  'rope_scaling': dict(rope_scaling=(8.0, 1.0, 4.0, 16), rope_theta=100.0),
  'lora': dict(lora_rank=3, lora_alpha=6.0),
  'all': dict(
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
    tie_embeddings=False,
    lora_rank=2,
  ),
}
# Relative to the spread of the logits, as gr2_jax/lm/README.md says. Sums of
# some tens of products in float32, over two layers, give 3e-6; with all
# switches on 1e-5 to 3e-5, by the order in which a processor adds up.
TOLERANCE = 1e-4


def _params(config):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  made = decoder.init(config, mesh, sharding.TRAIN_RULES, jax.random.key(0))
  rng = np.random.default_rng(0)
  # Nothing stays at the 0 or 1 that it starts with.
  return jax.tree.map(
    lambda x: rng.normal(x.mean(), 0.3, x.shape).astype(np.float32), made
  )


def _project(config, p, x):
  y = x @ p['kernel'].astype(np.float64)
  if config.lora_rank:
    y += config.lora_alpha / config.lora_rank * (x @ p['lora_a'] @ p['lora_b'])
  return y + p.get('bias', 0)


def _norm(config, p, x):
  mean = (x**2).mean(-1, keepdims=True)
  return x / np.sqrt(mean + config.norm_eps) * p['scale']


def _frequency(config, j):
  frequency = config.rope_theta ** (-2 * j / config.head_dim)
  if not config.rope_scaling:
    return frequency
  factor, low, high, original = config.rope_scaling
  wave = 2 * math.pi / frequency
  if wave < original / high:
    return frequency
  if wave > original / low:
    return frequency / factor
  smooth = (original / wave - low) / (high - low)
  return (1 - smooth) * frequency / factor + smooth * frequency


def _rotated(config, x, place):
  half = config.head_dim // 2
  out = x.copy()
  for j in range(half):
    angle = place * _frequency(config, j)
    a, b = x[..., j], x[..., j + half]
    out[..., j] = a * math.cos(angle) - b * math.sin(angle)
    out[..., j + half] = b * math.cos(angle) + a * math.sin(angle)
  return out


def _attention(config, p, x):
  length = len(x)
  shape = (length, -1, config.head_dim)
  q, k, v = (
    _project(config, p[name], x).reshape(shape)
    for name in ('query', 'key', 'value')
  )
  if config.qk_norm:
    q = _norm(config, p['query_norm'], q)
    k = _norm(config, p['key_norm'], k)
  q = np.stack([_rotated(config, q[t], t) for t in range(length)])
  k = np.stack([_rotated(config, k[t], t) for t in range(length)])
  out = np.zeros((length, config.heads, config.head_dim))
  for t in range(length):
    for head in range(config.heads):
      shared = head * config.kv_heads // config.heads
      scores = k[: t + 1, shared] @ q[t, head] / math.sqrt(config.head_dim)
      weights = np.exp(scores - scores.max())
      out[t, head] = weights / weights.sum() @ v[: t + 1, shared]
  return _project(config, p['out'], out.reshape(length, -1))


def _logits(config, params, tokens):
  x = params['embedding'][tokens].astype(np.float64)
  for layer in range(config.layers):
    p = params[f'layers_{layer}']
    x = x + _attention(
      config, p['attention'], _norm(config, p['attention_norm'], x)
    )
    y, mlp = _norm(config, p['mlp_norm'], x), p['mlp']
    gate = _project(config, mlp['gate'], y)
    hidden = gate / (1 + np.exp(-gate)) * _project(config, mlp['up'], y)
    x = x + _project(config, mlp['down'], hidden)
  x = _norm(config, params['final_norm'], x)
  table = params['embedding' if config.tie_embeddings else 'output']
  return x @ table.T.astype(np.float64)


@pytest.mark.parametrize('name', SWITCHES)
def test_equals_the_reference(name):
  config = dataclasses.replace(BASE, **SWITCHES[name])
  params = _params(config)
  tokens = np.random.default_rng(1).integers(0, 64, (1, 24))
  ours = jax.jit(decoder.Decoder(config).apply)({'params': params}, tokens)
  want = _logits(config, params, tokens[0])
  np.testing.assert_allclose(ours[0], want, rtol=0, atol=TOLERANCE * want.std())
  size = sum(x.size for x in jax.tree.leaves(params))
  assert size == config.num_params


@pytest.mark.parametrize('scan', [False, True])
def test_lora_starts_at_nothing_and_merges(scan, mesh8):
  config = dataclasses.replace(BASE, scan=scan, qkv_bias=True, width=32)
  rules = sharding.TRAIN_RULES
  base = decoder.init(config, mesh8, rules, jax.random.key(0))
  tuned, params = lora.add(
    config, base, 4, 8.0, mesh=mesh8, rules=rules, key=jax.random.key(1)
  )
  tokens = np.random.default_rng(1).integers(0, 64, (8, 5))
  apply = lambda config, params: jax.jit(decoder.Decoder(config).apply)(
    {'params': params}, tokens
  )
  plain = apply(config, base)
  np.testing.assert_array_equal(apply(tuned, params), plain)
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: x + 0.1 if path[-1].key == 'lora_b' else x, params
  )
  changed = apply(tuned, params)
  assert np.abs(changed - plain).max() > 0.1
  merged_config, merged = lora.merge(tuned, params)
  assert merged_config == config
  assert jax.tree.structure(merged) == jax.tree.structure(base)
  np.testing.assert_allclose(apply(config, merged), changed, rtol=0, atol=2e-5)
  with pytest.raises(ValueError, match='rank 4'):
    lora.add(
      tuned, params, 4, 8.0, mesh=mesh8, rules=rules, key=jax.random.key(1)
    )


def test_bfloat16_kernels_are_used_as_stored(mesh1):
  config = dataclasses.replace(BASE, param_dtype='bfloat16')
  params = decoder.init(config, mesh1, sharding.TRAIN_RULES, jax.random.key(0))
  kinds = {
    path[-1].key: x.dtype
    for path, x in jax.tree_util.tree_leaves_with_path(params)
  }
  assert kinds == {
    'embedding': 'float32',
    'kernel': 'bfloat16',
    'scale': 'float32',
  }
  wide = jax.tree.map(lambda x: x.astype('float32'), params)
  tokens = np.arange(6)[None]
  apply = lambda config, params: decoder.Decoder(config).apply(
    {'params': params}, tokens
  )
  np.testing.assert_array_equal(apply(config, params), apply(BASE, wide))


@pytest.mark.parametrize(
  'changes',
  [
    dict(rope_scaling=(8.0, 1.0)),
    dict(param_dtype='float16'),
    dict(lora_rank=-1),
  ],
)
def test_configs_that_make_no_sense(changes):
  with pytest.raises(ValueError, match=next(iter(changes))):
    dataclasses.replace(BASE, **changes)
