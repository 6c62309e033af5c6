"""Trains the RQ-VAE epoch by epoch, with checkpoints and metrics.

Letters: I items, M partners, W width of the embedding.
"""

import itertools
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
from gr2_jax.train import checkpoint, metrics


def fit(
  vectors: batches.Vectors,
  config: SidConfig,
  mesh: Mesh,
  directory: pathlib.Path,
  seed: int,
  partners: np.ndarray | None = None,
) -> steps.RqvaeState:
  """Trains to the end, or on from the last checkpoint, with the same result.

  Args:
    vectors: float32 [I, W], scaled; read block by block, so that they may lie
      on disk (`vectors.Embeddings`).
    config: the numbers.
    mesh: the mesh.
    directory: gets `metrics.jsonl` (a line an epoch) and `checkpoints/`.
    seed: of parameters, codebooks and orders.
    partners: int32 [I, M], as `pairs.partners` finds them; what the contrastive
      term needs.

  Returns:
    The trained state.

  Raises:
    ValueError: the contrastive term is on without partners, or the batch size
      does not divide by the devices.
  """
  source = batches.source(vectors, config, seed, partners, mesh)
  if config.batch_size % sharding.batch_parts(mesh):
    raise ValueError(
      f'sid.batch_size = {config.batch_size} does not divide by the '
      f'{sharding.batch_parts(mesh)} devices of the data and fsdp axes: change '
      'it or config.mesh.'
    )
  items, width = vectors.shape

  def train(current, number, blocks):
    quantises = number >= config.warmup_epochs
    if number == config.warmup_epochs:
      some = sharding.replicate(mesh, quantised.sample(vectors, config, seed))
      key = jax.random.fold_in(jax.random.key(seed), 1)
      current = steps.start_books(current, config, some, key)
    found = []
    for data in itertools.islice(blocks, source.plan.blocks):
      data = sharding.shard_batch(mesh, data, axis=1)
      current, numbers = steps.block(
        current, config, items, data, jnp.array(quantises)
      )
      found.append(numbers)
      # Only one block waits while another is worked on: more fill the memory.
      jax.block_until_ready(found[-2:-1])
    return current, _record(sharding.fetch(mesh, found), quantises)

  def unique(current):
    codes = quantised.codes(current, config, vectors, mesh)
    return assign.uniqueness(codes)

  start = steps.create(config, items, width, mesh, seed)
  with jax.set_mesh(mesh):
    return _loop(config, start, source, train, unique, directory)


def _loop(
  config: SidConfig,
  current: steps.RqvaeState,
  source: batches.Blocks,
  train: Callable[
    [steps.RqvaeState, int, Iterator], tuple[steps.RqvaeState, dict]
  ],
  unique: Callable[[steps.RqvaeState], float],
  directory: pathlib.Path,
) -> steps.RqvaeState:
  """Trains epoch by epoch, from the last checkpoint on."""
  writer = metrics.MetricsWriter(directory / 'metrics.jsonl')
  with checkpoint.Checkpointer(directory / 'checkpoints', keep=1) as saved:
    first = saved.latest or 0
    if first:
      current = saved.restore(current)[0]
    writer.truncate(first)
    blocks = batches.iterate(source, first)
    with progress.bar(
      total=config.epochs, desc='rq-vae', unit='epoch', initial=first
    ) as bar:
      for number in range(first, config.epochs):
        current, record = train(current, number, blocks)
        done = number + 1
        check = done % config.check_every == 0 or done == config.epochs
        if check and number >= config.warmup_epochs:
          record['uniqueness'] = unique(current)
        writer.write(done, record)
        if check:
          saved.save(done, current)
        bar.update()
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
