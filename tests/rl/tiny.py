"""A tiny LM, format and set of lists that the tests of this folder share."""

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl.config import RLConfig
from gr2_jax.rl.prompt_set import PromptSet
from gr2_jax.text.answer import AnswerFormat

Q, G, K, L, C = 8, 4, 3, 2, 4
# 0..15 special and delimiters, 16..31 text, 32..39 SID tokens, then unused.
FMT = AnswerFormat(
  open=10, mid=11, sep=12, close=13, eos=1, pad=0,
  sid_offset=32, levels=L, codes=C, unsafe=(16,),
)  # fmt: skip
MODEL = LMConfig(
  vocab_size=64, width=16, layers=1, heads=2, kv_heads=2, head_dim=8, mlp_dim=32
)
CONFIG = RLConfig(
  steps=4,
  prompts_per_step=Q,
  group_size=G,
  max_new_tokens=18,
  explanation_tokens=4,
  overlong_buffer=2,
  lr=1e-2,
  temperature=0.7,
)
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
  return PromptSet(prompts, candidates, SIDS, target, FMT.pad, buckets)


def params(mesh, rules=sharding.TRAIN_RULES, seed=0):
  """Random parameters, large enough that answers differ."""
  made = decoder.init(MODEL, mesh, rules, jax.random.key(seed))
  return jax.tree.map(lambda x: x * 3 if x.ndim > 1 else x, made)


def lists(mesh, rows=None):
  """A batch of Q lists on a mesh."""
  rows = np.arange(Q) if rows is None else rows
  return sharding.shard_batch(mesh, prompt_set(buckets=(16,)).batch(rows))


TEMPERATURE = jnp.float32(CONFIG.temperature)
