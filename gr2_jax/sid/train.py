"""Trains the RQ-VAE epoch by epoch, with checkpoints and metrics.

Letters: I items, M partners, W width of the embedding.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gr2_jax import progress, sharding
from gr2_jax.sid import assign, codebook, quantised, steps
from gr2_jax.sid.config import SidConfig
from gr2_jax.train import checkpoint, metrics


def fit(
  vectors: np.ndarray,
  config: SidConfig,
  mesh: Mesh,
  directory: pathlib.Path,
  seed: int,
  partners: np.ndarray | None = None,
) -> steps.RqvaeState:
  """Trains to the end, or on from the last checkpoint, with the same result.

  Args:
    vectors: float32 [I, W], standardised.
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
  _check(config, mesh, partners)
  current = steps.create(config, *vectors.shape, mesh, seed)
  vectors = sharding.replicate(mesh, vectors)
  if partners is not None:
    partners = sharding.replicate(mesh, partners)
  key = jax.random.fold_in(jax.random.key(seed), 1)

  def train(current, number):
    quantises = number >= config.warmup_epochs
    if number == config.warmup_epochs:
      current = steps.start_books(current, config, vectors, key)
    order_key = jax.random.fold_in(key, number)
    current, numbers = steps.epoch(
      current,
      config,
      mesh,
      vectors,
      order_key,
      jnp.array(quantises),
      partners,
    )
    return current, _record(numbers, quantises)

  def unique(current):
    return assign.uniqueness(quantised.infer(current, config, vectors).codes)

  with jax.set_mesh(mesh):
    return _loop(config, current, train, unique, directory)


def _loop(
  config: SidConfig,
  current: steps.RqvaeState,
  train: Callable[[steps.RqvaeState, int], tuple[steps.RqvaeState, dict]],
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
    with progress.bar(
      total=config.epochs, desc='rq-vae', unit='epoch', initial=first
    ) as bar:
      for number in range(first, config.epochs):
        current, record = train(current, number)
        done = number + 1
        check = done % config.check_every == 0 or done == config.epochs
        if check and number >= config.warmup_epochs:
          record['uniqueness'] = unique(current)
        writer.write(done, record)
        if check:
          saved.save(done, current)
        bar.update()
  return current


def _check(config: SidConfig, mesh: Mesh, partners: np.ndarray | None) -> None:
  parts = sharding.batch_parts(mesh)
  if config.batch_size % parts:
    raise ValueError(
      f'sid.batch_size = {config.batch_size} does not divide by the {parts} '
      'devices of the data and fsdp axes: change it or config.mesh.'
    )
  if bool(config.contrastive) != (partners is not None):
    given = 'missing' if partners is None else 'given'
    raise ValueError(
      f'sid.contrastive = {config.contrastive} and partners {given}: the term '
      'needs them, and nothing else does.'
    )


def _record(numbers: dict[str, Any], quantises: bool) -> dict[str, Any]:
  """Turns an epoch's numbers into a line of metrics."""
  names = (
    ('loss', *steps.NUMBERS) if quantises else ('loss', 'mse', 'contrastive')
  )
  record = {name: float(numbers[name]) for name in names if name in numbers}
  if quantises:
    for level, value in enumerate(codebook.perplexity(numbers['counts'])):
      record[f'perplexity_{level}'] = value
  return record
