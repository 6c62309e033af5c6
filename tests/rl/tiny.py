"""A tiny LM, format and set of lists that the tests of this folder share."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl.config import RLConfig
from gr2_jax.rl.prompt_set import PromptSet
from gr2_jax.text.answer import AnswerFormat

Q, G, K, L, C, M, S = 8, 4, 3, 2, 4, 5, 25
# 0..15 special and delimiters, 16..31 text, 32..39 SID tokens, then unused.
FMT = AnswerFormat(
  open=10, top=9, mid=11, sep=12, close=13, eos=1, pad=0, sid_begin=14,
  sid_end=15,  sid_offset=32, levels=L, codes=C, unsafe=(16,),
)  # fmt: skip
MODEL = LMConfig(
  vocab_size=64, width=16, layers=1, heads=2, kv_heads=2, head_dim=8, mlp_dim=32
)
CONFIG = RLConfig(
  steps=4,
  prompts_per_step=Q,
  group_size=G,
  # Of words six: one citation of four tokens may begin at three places.
  max_new_tokens=S,
  explanation_tokens=6,
  overlong_buffer=2,
  lr=1e-2,
  temperature=0.7,
  updates_per_rollout=2,
  explained_per_step=0,
  lists_per_step=256,
  alpha=0.2,
  credit='answer',
  checkpoint_every=20,
)
# Of rankings: half of 8 by each head, and 4 explanations.
RANKED = dataclasses.replace(
  CONFIG,
  overlong_buffer=0,
  rankings=8,
  lists_per_step=Q,
  explained_per_step=Q,
  credit='causal',
)
F = 2  # Evidence columns; the second one is the incoming order.
SIDS = np.array([[a, b] for a in range(C) for b in range(C)], np.int32)


def prompt_set(count=24, buckets=(12, 16), seed=0):
  """Lists of three items; every third one has but two candidates."""
  rng = np.random.default_rng(seed)
  candidates = np.stack(
    [rng.choice(len(SIDS), K, replace=False) for _ in range(count)]
  ).astype(np.int32)
  candidates[::3, -1] = -1
  prompts = [
    rng.integers(17, 32, rng.integers(6, 16)).tolist() for _ in range(count)
  ]
  target = rng.integers(0, 2, count).astype(np.int32)
  history = rng.integers(0, len(SIDS), (count, M - K)).astype(np.int32)
  citable = np.concatenate([history, candidates], 1)
  return PromptSet(
    prompts,
    candidates,
    SIDS,
    target,
    pad=FMT.pad,
    buckets=buckets,
    citable=citable,
  )


def params(mesh, rules=sharding.TRAIN_RULES, seed=0):
  """Random parameters, large enough that answers differ."""
  made = decoder.init(MODEL, mesh, rules, jax.random.key(seed))
  return jax.tree.map(lambda x: x * 3 if x.ndim > 1 else x, made)


def lists(mesh, rows=None):
  """A batch of Q lists on a mesh."""
  rows = np.arange(Q) if rows is None else rows
  return sharding.shard_batch(mesh, prompt_set(buckets=(16,)).batch(rows))


def ranked_set(count=24, seed=0):
  """The same lists with evidence columns."""
  features = np.random.default_rng(seed + 1).normal(size=(count, K, F))
  return dataclasses.replace(
    prompt_set(count, (16,), seed), features=features.astype(np.float32)
  )


def explained_set(count=24, seed=0):
  """The same lists with direct prompts beside the explained ones."""
  rng = np.random.default_rng(seed + 2)
  histories = [
    rng.integers(17, 32, rng.integers(3, 12)).tolist() for _ in range(count)
  ]
  return dataclasses.replace(ranked_set(count, seed), histories=histories)


def ranker(mesh, seed=0):
  """A ranker: that LM with heads whose utilities differ."""
  head = {
    'full': {'tau': 0.3, 'weights': np.array([0.5, -0.7]), 'words': 0.2},
    'alone': {'tau': 0.6, 'weights': np.array([0.9]), 'words': 0.4},
  }
  head = jax.tree.map(lambda x: np.asarray(x, np.float32), head)
  return {
    'lm': params(mesh, seed=seed),
    'head': sharding.replicate(mesh, head),
  }


@contextlib.contextmanager
def programs():
  """Collects the names of what is traced or compiled meanwhile."""
  seen = []

  def listen(event, _, **kwargs):
    if event.startswith('/jax/core/compile'):
      seen.append((event, kwargs))

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield seen
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


TEMPERATURE = jnp.float32(CONFIG.temperature)
