"""Codes of all items, from a trained RQ-VAE or from residual k-means.

Letters: I items, W width of the embedding, D width of the codes, L levels,
C codes a level.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gr2_jax import sharding
from gr2_jax.sid import codebook, rqvae
from gr2_jax.sid.config import SidConfig
from gr2_jax.sid.steps import RqvaeState


class Quantised(NamedTuple):
  """What a trained quantiser says about I items.

  Attributes:
    codes: int32 [I, L], the nearest ones.
    mse: mean squared reconstruction error per component.
    last: float32 [I, D], residuals before the last level.
    books: float32 [L, C, D].
  """

  codes: np.ndarray
  mse: float
  last: np.ndarray
  books: np.ndarray


@functools.partial(jax.jit, static_argnames='config')
def _infer(current, config, vectors):
  model = rqvae.Autoencoder(config, vectors.shape[1])
  _, aux = rqvae.loss(current.train.params, model, vectors, jnp.array(True))
  return aux['codes'], aux['mse'], aux['residuals'][:, -1]


def infer(
  current: RqvaeState, config: SidConfig, vectors: jax.Array
) -> Quantised:
  """Quantises all items.

  Args:
    current: a trained state.
    config: the numbers.
    vectors: float32 [I, W], standardised.

  Returns:
    The codes.
  """
  codes, mse, last = _infer(current, config, vectors)
  return Quantised(
    np.asarray(codes), float(mse), np.asarray(last), np.asarray(current.books)
  )


@jax.jit
def _codes(books, vectors):
  return codebook.quantise(books, vectors)


def nearest(books: jax.Array, vectors: jax.Array) -> np.ndarray:
  """Quantises vectors as they are.

  Args:
    books: float32 [L, C, D].
    vectors: float32 [I, D].

  Returns:
    int32 [I, L].
  """
  return np.asarray(_codes(books, vectors)[0])


def kmeans(
  vectors: np.ndarray, config: SidConfig, mesh: Mesh, seed: int
) -> Quantised:
  """Quantises items by residual k-means on their vectors: the baseline.

  Args:
    vectors: float32 [I, W], standardised.
    config: levels, codes and iterations.
    mesh: the mesh.
    seed: of the starts.

  Returns:
    The codes; the error is that of the sum of the chosen codes.
  """
  vectors = sharding.replicate(mesh, vectors)
  with jax.set_mesh(mesh):
    books = codebook.residual_kmeans(
      jax.random.key(seed),
      vectors,
      config.levels,
      config.codes,
      config.kmeans_iterations,
    )
    codes, chosen, residuals = _codes(books, vectors)
  left = np.asarray(residuals[:, -1] - chosen[:, -1])
  return Quantised(
    np.asarray(codes),
    float((left**2).mean()),
    np.asarray(residuals[:, -1]),
    np.asarray(books),
  )
