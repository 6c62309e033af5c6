"""Trains the RQ-VAE on the training loop, with checkpoints and metrics.

A step of the loop is a block of `batches.Blocks`: an epoch, or of a catalogue
above 8,192 items an equal part of one.

Letters: I items, M partners, W width of the embedding, L levels, C codes.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gr2_jax import sharding
from gr2_jax.sid import assign, batches, quantised, steps
from gr2_jax.sid.config import SidConfig
from gr2_jax.train import loop, writers
from gr2_jax.train.retention import Policy


def fit(
  vectors: batches.Vectors,
  config: SidConfig,
  mesh: Mesh,
  directory: pathlib.Path,
  seed: int,
  *,
  partners: np.ndarray | None = None,
  policy: Policy | None = None,
  tracking: writers.Tracking | None = None,
) -> steps.RqvaeState:
  """Trains to the end, or on from the last checkpoint, with the same result.

  Args:
    vectors: float32 [I, W], scaled; may lie on disk (`vectors.Embeddings`).
    config: the numbers.
    mesh: the mesh.
    directory: gets `checkpoints/`, `metrics.jsonl` (a record an epoch, whose
      `step` counts blocks), `timing.jsonl`.
    seed: of parameters, codebooks and orders.
    partners: int32 [I, M], of `pairs.partners`, for the contrastive term.
    policy: what the checkpoints must agree with.
    tracking: see `train.loop.Loop`; a step is a block.

  Returns:
    The trained state.

  Raises:
    FloatingPointError: the loss is not finite.
    ValueError: the contrastive term is on without partners, or the batch size
      does not divide by the devices.
  """
  source = batches.source(vectors, config, seed, partners, mesh)
  _check_batch(config, mesh)
  started = config.warmup_epochs * source.plan.blocks * source.plan.steps

  def evaluate(current: steps.RqvaeState) -> dict[str, float]:
    if int(current.train.step) <= started:
      return {}
    codes = quantised.codes(current, config, vectors, mesh)
    return {'uniqueness': assign.uniqueness(codes)}

  return loop.Loop(
    step_fn=_step(vectors, config, mesh, seed, started),
    iterator=batches.iterate(source),
    num_steps=len(source),
    directory=directory,
    mesh=mesh,
    ckpt_every=config.check_every * source.plan.blocks,
    log_every=source.plan.blocks,
    desc='rq-vae',
    evaluate=evaluate,
    policy=policy,
    work=lambda block: {'items': len(block['vectors'])},
    tracking=tracking,
  ).fit(steps.create(config, *vectors.shape, mesh, seed))


def _check_batch(config: SidConfig, mesh: Mesh) -> None:
  if config.batch_size % sharding.batch_parts(mesh):
    raise ValueError(
      f'sid.batch_size = {config.batch_size} does not divide by the '
      f'{sharding.batch_parts(mesh)} devices of the data and fsdp axes: change '
      'it or config.mesh.'
    )


def _step(
  vectors: batches.Vectors,
  config: SidConfig,
  mesh: Mesh,
  seed: int,
  started: int,
) -> Callable[[steps.RqvaeState, Any], tuple[steps.RqvaeState, dict]]:
  """Returns the training on a block; the codebooks start at step `started`."""
  items = len(vectors)

  def train(current: steps.RqvaeState, block: Any) -> tuple:
    # Waits for the block before: more of them under way would fill the memory.
    done = int(current.train.step)
    if done == started:
      some = sharding.replicate(mesh, quantised.sample(vectors, config, seed))
      key = jax.random.fold_in(jax.random.key(seed), 1)
      current = steps.start_books(current, config, some, key)
    quantises = done >= started
    current, numbers = steps.block(
      current, config, items, block, jnp.array(quantises)
    )
    return current, _pairs(numbers, quantises)

  return train


def _pairs(numbers: dict[str, jax.Array], quantises: bool) -> dict[str, tuple]:
  """Returns a block's numbers as metrics, each counted once."""
  if quantises:
    levels = enumerate(_perplexity(numbers['counts']))
    numbers |= {f'perplexity_{level}': value for level, value in levels}
    left_out = {'counts'}
  else:
    left_out = {'counts', 'commitment', 'diversity'}
  return {k: (v, 1.0) for k, v in numbers.items() if k not in left_out}


@jax.jit
def _perplexity(counts: jax.Array) -> jax.Array:
  """As `codebook.perplexity`, on the device: float32 [L] of counts [L, C]."""
  share = counts / counts.sum(-1, keepdims=True)
  return jnp.exp(-jax.scipy.special.xlogy(share, share).sum(-1))
