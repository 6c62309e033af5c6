"""The decoder beside its peers: decoding, rollouts, drawing, training.

Random weights of three sizes; prompts of 256 tokens, 64 new ones.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import sharding
from gr2_jax.decode import categorical, sampler
from gr2_jax.decode import items as items_lib
from gr2_jax.lm import decoder, loss
from gr2_jax.lm.config import LMConfig
from gr2_jax.text import answer
from gr2_jax.train import optimiser, state, step
from launch.bench import contests, latency, ranking, tasks
from launch.bench.peers import transformers_lm

PROMPT, NEW = 256, 64
ROWS, LENGTH = 8, 256
BATCHES = (1, 8, 32, 64)


def parts() -> dict[str, Callable[[], Iterator[contests.Contest]]]:
  """Returns the parts of this group; a model is made when it is its turn."""
  found = {}
  for size in tasks.SIZES:
    for queries in BATCHES:
      decoding = functools.partial(_decoding, size, queries, 1)
      found[f'decoding {size}, batch {queries}'] = decoding
    found[f'drawing {size}'] = functools.partial(_drawing, size)
    if size != '2M':
      found[f'rollouts {size}'] = functools.partial(_decoding, size, 8, 8)
      found[f'training {size}'] = functools.partial(_training, size)
  found['utilities 2M'] = functools.partial(
    ranking.answers, '2M', tasks.SIZES['2M']
  )
  found['latency 2M'] = functools.partial(
    latency.latency, '2M', tasks.SIZES['2M']
  )
  found['roofline 135M'] = functools.partial(_roofline, '135M')
  return found


class _Ours:
  """Our sampler on random weights of one shape."""

  def __init__(self, size: str):
    self.mesh = sharding.make_mesh()
    # As rollouts hold them: kernels in the type in which they are read.
    kind = 'bfloat16' if tasks.BF16 else 'float32'
    self.config = dataclasses.replace(tasks.SIZES[size], param_dtype=kind)
    self._params, _ = sharding.init(
      decoder.init_fn(self.config), self.mesh, sharding.DECODE_RULES,
      jax.random.key(0),
    )  # fmt: skip
    self._format = answer.AnswerFormat(
      open=4, top=8, mid=5, sep=6, close=7, eos=-1, pad=0, sid_begin=9,
      sid_end=10,
      sid_offset=self.config.vocab_size - 64, levels=4, codes=16, unsafe=(),
    )  # fmt: skip

  def sampling(
    self, prompts: np.ndarray, group: int, new: int
  ) -> Callable[[], None]:
    """Returns a call of the sampler."""
    queries = len(prompts)
    valid = np.ones(prompts.shape, bool)
    nothing = np.zeros((queries, 0, 4), np.int32), np.zeros((queries, 0), bool)
    items = items_lib.Items(*nothing, *nothing)

    def run():
      with sharding.use(self.mesh, sharding.DECODE_RULES):
        found = sampler.sample(
          self.config, self._params, prompts, valid, jax.random.key(0),
          num_samples=group, max_new_tokens=new, temperature=jnp.float32(1.0),
          fmt=self._format, items=items, constrain=False,
          explanation_tokens=0,
        )  # fmt: skip
      jax.block_until_ready(found.tokens)

    return run


def _prompts(config: LMConfig, queries: int, length: int) -> np.ndarray:
  rng = np.random.default_rng(0)
  shape = (queries, length)
  return rng.integers(8, config.vocab_size, shape).astype(np.int32)


def _decoding(
  size: str, queries: int, group: int
) -> Iterator[contests.Contest]:
  ours = _Ours(size)
  prompts = _prompts(ours.config, queries, PROMPT)
  peer, theirs = contests.fastest(
    transformers_lm.generate(ours.config, prompts, group, NEW)
  )
  goal = 2.0 if (size, queries) == ('135M', 1) else 1.0
  name = f'decoding, {size}, batch {queries}'
  if group > 1:
    goal, name = 3.0, f'rollouts, {size}, {queries} prompts x {group}'
  yield contests.Contest(
    name, f'generate, {peer}', 'tokens', queries * group * NEW,
    ours=ours.sampling(prompts, group, NEW), theirs=theirs, goal=goal,
  )  # fmt: skip


def _roofline(size: str) -> Iterator[contests.Contest]:
  """Decoding at batch 1 beside reading what its steps read."""
  ours = _Ours(size)
  config, prompt, new = ours.config, 8, 128
  # Each step reads all weights and the cache as it grows.
  width = 2 if tasks.BF16 else 4
  cache = 2 * config.layers * config.kv_heads * config.head_dim
  size_of_step = width * (config.num_params + cache * (prompt + new // 2))
  read = transformers_lm.reading(size_of_step)

  def theirs():
    for _ in range(new):
      read()

  yield contests.Contest(
    f'decoding, {size}, batch 1, prompt of 8', 'reading weights and cache',
    'tokens', new, ours=ours.sampling(_prompts(config, 1, prompt), 1, new),
    theirs=theirs, goal=0.6,
  )  # fmt: skip


def _drawing(size: str) -> Iterator[contests.Contest]:
  """Drawing tokens for 64 rows beside the steps that make their logits."""
  ours = _Ours(size)
  config, draws = ours.config, 64
  logits = jax.random.normal(jax.random.key(0), (64, config.vocab_size))
  uniform = jax.random.uniform(jax.random.key(1), (draws, 64))

  @jax.jit
  def draw(uniform, logits):
    # Other logits for each draw, or all but the last lookup is done once.
    one = lambda u: categorical.choose(u, logits * u[0], jnp.float32(1.0))
    return jax.lax.map(one, uniform)

  yield contests.Contest(
    f'drawing, {size}, 64 rows', 'whole decoding step', 'steps', draws,
    ours=lambda: jax.block_until_ready(draw(uniform, logits)),
    theirs=ours.sampling(_prompts(config, 64, 8), 1, draws), goal=10.0,
  )  # fmt: skip


def _training(size: str) -> Iterator[contests.Contest]:
  config, mesh = tasks.SIZES[size], sharding.make_mesh()
  tokens = _prompts(config, ROWS, LENGTH)
  shape = tokens.shape
  batch = {
    'tokens': tokens,
    'positions': np.broadcast_to(np.arange(LENGTH, dtype=np.int32), shape),
    'segments': np.ones(shape, np.int32),
    'weights': np.ones(shape, np.float32),
  }
  tx = optimiser.make(optimiser.OptimiserConfig(schedule='constant', lr=1e-4))
  params = decoder.init(config, mesh, sharding.TRAIN_RULES, jax.random.key(0))
  held = [state.create(params, tx, mesh)]
  update = step.make_train_step(
    lambda params, batch: loss.lm_loss(config, params, batch), tx
  )
  batch = sharding.shard_batch(mesh, batch)

  def ours():
    with sharding.use(mesh, sharding.TRAIN_RULES):
      held[0], _ = update(held[0], batch)
    jax.block_until_ready(held[0].params)

  peer, theirs = contests.fastest(transformers_lm.training(config, tokens))
  yield contests.Contest(
    f'training, {size}, {ROWS} x {LENGTH}', f'PyTorch, {peer}', 'tokens',
    ROWS * LENGTH, ours=ours, theirs=theirs, goal=1.0,
  )  # fmt: skip
