"""A tiny model with strong opinions, and the answer format it speaks."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.decode import sampler
from gr2_jax.decode.items import Items
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder
from gr2_jax.text import answer

LEVELS, CODES = 3, 8
# Of words: room for one citation and three tokens.
BUDGET = 8


@pytest.fixture(scope='session')
def fmt():
  return answer.AnswerFormat(
    open=16,
    top=13,
    mid=17,
    sep=18,
    close=19,
    eos=2,
    pad=0,
    sid_begin=14,
    sid_end=15,
    sid_offset=20,
    levels=LEVELS,
    codes=CODES,
    unsafe=(5, 6),
  )


@pytest.fixture(scope='session')
def tiny():
  config = lm_config.LMConfig(
    vocab_size=64,
    width=16,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_dim=32,
  )
  init = jax.jit(decoder.Decoder(config).init)
  tokens = jnp.zeros((1, 2), jnp.int32)
  initial = nn.meta.unbox(init(jax.random.key(0), tokens)['params'])
  params = _shake(initial, 0)
  forward = jax.jit(
    lambda tokens: decoder.Decoder(config).apply({'params': params}, tokens)
  )
  return types.SimpleNamespace(
    config=config, initial=initial, params=params, forward=forward
  )


def _shake(params, seed):
  """Adds noise, so that next-token distributions are far from uniform."""
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(seed)
  leaves = [
    jnp.asarray(x + rng.normal(0, 0.3, x.shape), jnp.float32) for x in leaves
  ]
  return jax.tree.unflatten(tree, leaves)


@pytest.fixture(scope='session')
def remake(tiny):
  """Gives other weights of the same shapes: `remake(seed)`."""
  return lambda seed: _shake(tiny.initial, seed)


@pytest.fixture(scope='session')
def prompts():
  """Four prompts [4, 8] of 8, 5, 3 and 6 tokens and their masks."""
  rng = np.random.default_rng(1)
  valid = np.arange(8) < np.array([8, 5, 3, 6])[:, None]
  tokens = np.where(valid, rng.integers(3, 60, (4, 8)), 0)
  return jnp.asarray(tokens, jnp.int32), jnp.asarray(valid)


@pytest.fixture(scope='session')
def lists():
  """Candidates [4, 3, 3] that share prefixes, one list of them shorter."""
  sids = [
    [[0, 1, 2], [0, 1, 3], [4, 1, 2]],
    [[7, 7, 7], [7, 0, 7], [7, 7, 0]],
    [[1, 2, 3], [3, 2, 1], [0, 0, 0]],
    [[5, 6, 7], [5, 6, 0], [5, 6, 1]],
  ]
  mask = np.ones((4, 3), bool)
  mask[2, 2] = False
  return jnp.asarray(sids, jnp.int32), jnp.asarray(mask)


@pytest.fixture(scope='session')
def citable():
  """Citable items [4, 4, 3]: more than candidates, few, one twice, and none."""
  sids = [
    [[0, 1, 2], [2, 2, 2], [0, 1, 3], [4, 1, 2]],
    [[6, 5, 4], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
    [[1, 2, 3], [1, 2, 3], [3, 2, 1], [0, 0, 0]],
    [[0, 0, 0]] * 4,
  ]
  mask = np.arange(4) < np.array([4, 1, 3, 0])[:, None]
  return jnp.asarray(sids, jnp.int32), jnp.asarray(mask)


@pytest.fixture(scope='session')
def sample(tiny, fmt, prompts, lists, citable):
  """Gives `sample(seed, temperature, constrain, params, ..) -> Samples`."""

  def run(
    seed=0,
    temperature=1.0,
    constrain=True,
    params=None,
    slots=BUDGET + 21,
    filters=None,
    batch=prompts,
    words_only=False,
  ):
    return sampler.sample(
      tiny.config,
      tiny.params if params is None else params,
      *batch,
      jax.random.key(seed),
      num_samples=4,
      max_new_tokens=slots,
      temperature=jnp.float32(temperature),
      fmt=fmt,
      items=Items(*lists, *citable),
      constrain=constrain,
      explanation_tokens=BUDGET,
      filters=filters,
      words_only=words_only,
    )

  return run


@pytest.fixture(scope='session')
def kept_by_sorting():
  """Gives the reference of the filters in float64.

  `kept_by_sorting(logits [V], top_k, top_p, min_p) -> bool [V]`.
  """

  def kept(logits, top_k=0, top_p=1.0, min_p=0.0):
    logits = np.asarray(logits, np.float64)
    order = np.argsort(-logits, kind='stable')
    least = -np.inf
    if 0 < top_k < len(logits):
      least = logits[order[top_k - 1]]
    probs = np.exp(logits - logits.max()) * (logits >= least)
    probs /= probs.sum()
    if top_p < 1:
      mass = np.cumsum(probs[order])
      last = min(np.searchsorted(mass, top_p), np.count_nonzero(probs) - 1)
      least = max(least, logits[order[last]])
    with np.errstate(divide='ignore'):
      least = max(least, logits.max() + np.log(min_p))
    return logits >= least

  return kept
