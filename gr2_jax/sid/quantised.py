"""Codes of all items, from a trained RQ-VAE or from residual k-means.

Items pass in batches of one shape, split over the mesh: memory is bounded by
the batch and the codes, however many embeddings lie on disk.

Letters: I items, W width of the embedding, D width of the codes, L levels,
C codes a level.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.sid import batches, codebook, rqvae, vectors
from gr2_jax.sid.config import SidConfig
from gr2_jax.sid.steps import RqvaeState

# Vectors that pass through all levels together: what stays in a core's cache.
_TILE = 512


class Quantised(NamedTuple):
  """What a trained quantiser gives for I items.

  Attributes:
    codes: int32 [I, L], the nearest ones.
    mse: mean squared reconstruction error per component.
    last: float32 [I, D], residuals before the last level; None where
      `sid.last_level` does not need them.
    books: float32 [L, C, D].
  """

  codes: np.ndarray
  mse: float
  last: np.ndarray | None
  books: np.ndarray


def sample(data: batches.Vectors, config: SidConfig, seed: int) -> np.ndarray:
  """Draws the items that start the codebooks (`SidConfig.kmeans_items`).

  Args:
    data: float32 [I, W], scaled.
    config: the numbers.
    seed: of the draw.

  Returns:
    float32 [n, W]: all items in order where there are few enough.
  """
  items, most = len(data), config.kmeans_items
  if items <= most:
    return data[:items]
  rng = np.random.default_rng([seed, 0])
  return data[np.sort(rng.choice(items, most, replace=False))]


@functools.lru_cache(maxsize=8)
def _tiled(mesh: Mesh, quantise: Callable) -> Callable:
  """Compiles `quantise(params, x) -> {name: array by row}` of a batch."""

  def local(params, x):
    tiles = x.reshape(-1, min(len(x), _TILE), x.shape[-1])
    found = jax.lax.map(lambda tile: quantise(params, tile), tiles)
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), found)

  rows = PartitionSpec(sharding.BATCH)
  return jax.jit(
    jax.shard_map(
      local, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows
    )
  )


def _by_batch(
  quantise: Callable, params: Any, data: batches.Vectors, mesh: Mesh
) -> dict[str, np.ndarray]:
  """Applies `quantise` to all vectors; the next batch is read meanwhile."""
  run = _tiled(mesh, quantise)
  items, parts = len(data), sharding.batch_parts(mesh)
  # The smallest number of whole tiles for small catalogues, else all of them.
  share = -(-min(items, vectors.ROWS) // parts)
  size = parts * (share if share <= _TILE else padding.round_up(share, _TILE))
  own = sharding.own_rows(mesh, size)
  found, pending = [], None
  for rows in vectors.blocks(items, size):
    x = np.zeros((size, data.shape[1]), np.float32)
    count = rows.stop - rows.start
    if len(own) == size:
      x[:count] = data[rows]
    else:
      mine = own[own < count]
      x[mine] = data[rows.start + mine]
    arrays = run(params, sharding.shard_batch(mesh, x))
    started = sharding.replicate(mesh, arrays), count
    if pending is not None:
      found.append(_fetch(*pending))
    pending = started
  found.append(_fetch(*pending))
  return {name: np.concatenate([x[name] for x in found]) for name in found[0]}


def _fetch(arrays: dict[str, jax.Array], count: int) -> dict[str, np.ndarray]:
  return {name: np.asarray(x)[:count] for name, x in arrays.items()}


@functools.lru_cache(maxsize=8)
def _rqvae(config: SidConfig, width: int) -> Callable:
  model = rqvae.Autoencoder(config, width)

  def quantise(params, x):
    z = rqvae.apply(model, params, x, 'encode')
    codes, chosen, residuals = codebook.quantise(params['books'], z)
    decoded = rqvae.apply(model, params, chosen.sum(1), 'decode')
    return _found(config, codes, residuals, x - decoded)

  return quantise


@functools.lru_cache(maxsize=8)
def _encoded(config: SidConfig, width: int) -> Callable:
  model = rqvae.Autoencoder(config, width)

  def quantise(params, x):
    return _codes(params, rqvae.apply(model, params, x, 'encode'))

  return quantise


@functools.lru_cache(maxsize=8)
def _plain(config: SidConfig) -> Callable:
  def quantise(params, x):
    codes, chosen, residuals = codebook.quantise(params['books'], x)
    left = residuals[:, -1] - chosen[:, -1]
    return _found(config, codes, residuals, left)

  return quantise


def _found(config, codes, residuals, left):
  found = {'codes': codes, 'errors': (left**2).mean(-1)}
  if config.last_level == 'sinkhorn':
    found['last'] = residuals[:, -1]
  return found


def _codes(params, x):
  return {'codes': codebook.quantise(params['books'], x)[0]}


def infer(
  current: RqvaeState, config: SidConfig, data: batches.Vectors, mesh: Mesh
) -> Quantised:
  """Quantises all items.

  Args:
    current: a trained state.
    config: the numbers.
    data: float32 [I, W], scaled; read in batches.
    mesh: each batch is split over its data and fsdp axes.

  Returns:
    The codes.
  """
  quantise = _rqvae(config, data.shape[1])
  found = _by_batch(quantise, current.train.params, data, mesh)
  return _quantised(found, sharding.fetch(mesh, current.books))


def codes(
  current: RqvaeState, config: SidConfig, data: batches.Vectors, mesh: Mesh
) -> np.ndarray:
  """Quantises all items to their codes alone: nothing is decoded.

  Args:
    current: a trained state.
    config: the numbers.
    data: float32 [I, W], scaled; read in batches.
    mesh: each batch is split over its data and fsdp axes.

  Returns:
    int32 [I, L], the nearest ones.
  """
  quantise = _encoded(config, data.shape[1])
  return _by_batch(quantise, current.train.params, data, mesh)['codes']


def _quantised(found: dict[str, np.ndarray], books: np.ndarray) -> Quantised:
  return Quantised(
    found['codes'],
    float(found['errors'].mean()),
    found.get('last'),
    books,
  )


def nearest(books: jax.Array, data: batches.Vectors, mesh: Mesh) -> np.ndarray:
  """Quantises vectors as they are.

  Args:
    books: float32 [L, C, D].
    data: float32 [I, D]; read in batches.
    mesh: each batch is split over its data and fsdp axes.

  Returns:
    int32 [I, L].
  """
  return _by_batch(_codes, {'books': books}, data, mesh)['codes']


def kmeans(
  data: batches.Vectors, config: SidConfig, mesh: Mesh, seed: int
) -> Quantised:
  """Quantises items by residual k-means on their vectors: the baseline.

  Args:
    data: float32 [I, W], scaled; read in batches.
    config: levels, codes, iterations and items of the k-means.
    mesh: the mesh.
    seed: of the starts.

  Returns:
    The codes; the error is that of the sum of the chosen codes.
  """
  with jax.set_mesh(mesh):
    books = codebook.residual_kmeans(
      jax.random.key(seed),
      sharding.replicate(mesh, sample(data, config, seed)),
      config.levels,
      config.codes,
      config.kmeans_iterations,
    )
  found = _by_batch(_plain(config), {'books': books}, data, mesh)
  return _quantised(found, sharding.fetch(mesh, books))
