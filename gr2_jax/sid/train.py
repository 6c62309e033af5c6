"""Trains the RQ-VAE epoch by epoch, with checkpoints and metrics.

Letters: I items, M partners, W width of the embedding.
"""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gr2_jax import progress, sharding
from gr2_jax.sid import assign, batches, codebook, quantised, steps
from gr2_jax.sid.config import SidConfig
from gr2_jax.train import checkpoint, preemption, profile, timing, writers
from gr2_jax.train.retention import Policy


def fit(
  vectors: batches.Vectors,
  config: SidConfig,
  mesh: Mesh,
  directory: pathlib.Path,
  seed: int,
  partners: np.ndarray | None = None,
  policy: Policy | None = None,
  tracking: writers.Tracking | None = None,
) -> steps.RqvaeState:
  """Trains to the end, or on from the last checkpoint, with the same result.

  Args:
    vectors: float32 [I, W], scaled; may lie on disk (`vectors.Embeddings`).
    config: the numbers.
    mesh: the mesh.
    directory: gets `checkpoints/`, `metrics.jsonl`, `timing.jsonl`.
    seed: of parameters, codebooks and orders.
    partners: int32 [I, M], of `pairs.partners`, for the contrastive term.
    policy: what the checkpoints must agree with.
    tracking: see `train.loop.fit`; a step is an epoch.

  Returns:
    The trained state.

  Raises:
    ValueError: the contrastive term is on without partners, or the batch size
      does not divide by the devices.
  """
  source = batches.source(vectors, config, seed, partners, mesh)
  _check_batch(config, mesh)
  items, width = vectors.shape

  def train(current, number, blocks, clock):
    quantises = number >= config.warmup_epochs
    if number == config.warmup_epochs:
      some = sharding.replicate(mesh, quantised.sample(vectors, config, seed))
      key = jax.random.fold_in(jax.random.key(seed), 1)
      current = steps.start_books(current, config, some, key)
    found = []
    for _ in range(source.plan.blocks):
      with clock.book('data'):
        data = next(blocks)
        clock.did({'items': data['vectors'][..., 0].size})
        data = sharding.shard_batch(mesh, data, axis=1)
      current, numbers = steps.block(
        current, config, items, data, jnp.array(quantises)
      )
      found.append(numbers)
      # Only one block waits while another is worked on: more fill the memory.
      jax.block_until_ready(found[-2:-1])
    return current, _record(sharding.fetch(mesh, found), quantises)

  unique = lambda current: assign.uniqueness(
    quantised.codes(current, config, vectors, mesh)
  )
  start = steps.create(config, items, width, mesh, seed)
  watched = directory, policy, tracking
  with jax.set_mesh(mesh):
    return _loop(config, start, source, train, unique, *watched)


def _check_batch(config: SidConfig, mesh: Mesh) -> None:
  if config.batch_size % sharding.batch_parts(mesh):
    raise ValueError(
      f'sid.batch_size = {config.batch_size} does not divide by the '
      f'{sharding.batch_parts(mesh)} devices of the data and fsdp axes: change '
      'it or config.mesh.'
    )


def _loop(
  config: SidConfig,
  current: steps.RqvaeState,
  source: batches.Blocks,
  train: Callable[
    [steps.RqvaeState, int, Iterator, timing.Clock],
    tuple[steps.RqvaeState, dict],
  ],
  unique: Callable[[steps.RqvaeState], float],
  directory: pathlib.Path,
  policy: Policy | None,
  tracking: writers.Tracking | None,
) -> steps.RqvaeState:
  """Trains epoch by epoch, from the last checkpoint on."""
  traced = tracking.profile if tracking else ''
  with (
    checkpoint.Checkpointer(directory / 'checkpoints', policy) as saved,
    writers.Writers(directory, tracking) as writer,
    profile.Profiler(traced, directory / 'profile') as profiler,
  ):
    found = saved.restore(current)
    if found is not None:
      current = found[0]
    first = found[2]['epoch'] if found else 0
    writer.truncate(first)
    blocks = batches.iterate(source, first)
    clock = timing.Clock()
    with (
      progress.bar(
        total=config.epochs, desc='rq-vae', unit='epoch', initial=first
      ) as bar,
      preemption.guard() as preempted,
    ):
      for number in range(first, config.epochs):
        done = number + 1
        current, record = profiler.run(
          done, train, current, number, blocks, clock
        )
        check = done % config.check_every == 0 or done == config.epochs
        if check and number >= config.warmup_epochs:
          with clock.book('evaluation'):
            record['uniqueness'] = unique(current)
        writer.write(done, record)
        code = preempted(done)
        if check or code:
          with clock.book('checkpoint'):
            writer.flush()
            saved.save(done, current, meta={'epoch': done})
        writer.write_timing(done, clock.take())
        bar.update()
        if code:
          saved.wait()
          raise preemption.Preempted(
            code,
            f'the RQ-VAE is saved after epoch {done} of {config.epochs}',
          )
  return current


def _record(
  blocks: Sequence[dict[str, Any]], quantises: bool
) -> dict[str, Any]:
  """Turns an epoch's blocks into a line of metrics."""
  names = (
    ('loss', *steps.NUMBERS) if quantises else ('loss', 'mse', 'contrastive')
  )
  record = {
    name: float(np.mean([block[name] for block in blocks]))
    for name in names
    if name in blocks[0]
  }
  if quantises:
    counts = sum(block['counts'] for block in blocks)
    for level, value in enumerate(codebook.perplexity(counts)):
      record[f'perplexity_{level}'] = value
  return record
