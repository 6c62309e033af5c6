"""The RQ-VAE: an autoencoder whose latent vector is a sum of L codes.

GR2.md, stage 1a; Lee et al., arXiv 2203.01941; Rajput et al., arXiv
2305.05065. Letters: B items, W width of the embedding, D width of the latent
vector, L levels, C codes a level.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.sid import codebook
from gr2_jax.sid.config import SidConfig


class _Mlp(nn.Module):
  """Affine maps with ReLU between them."""

  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for index, width in enumerate(self.widths):
      x = nn.Dense(width, name=f'dense_{index}')(nn.relu(x) if index else x)
    return x


class Autoencoder(nn.Module):
  """Encoder and decoder, mirror images of each other."""

  config: SidConfig
  width: int

  def setup(self):
    """Makes the two halves."""
    hidden = self.config.hidden
    self.encoder = _Mlp((*hidden, self.config.latent))
    self.decoder = _Mlp((*hidden[::-1], self.width))

  def __call__(self, h: jax.Array) -> jax.Array:
    """Reconstructs vectors [B, W] without quantisation."""
    return self.decoder(self.encoder(h))

  def encode(self, h: jax.Array) -> jax.Array:
    """Maps vectors [B, W] to latent ones [B, D]."""
    return self.encoder(h)

  def decode(self, z: jax.Array) -> jax.Array:
    """Maps latent vectors [B, D] to vectors [B, W]."""
    return self.decoder(z)


def standardise(vectors: np.ndarray) -> np.ndarray:
  """Centres vectors and scales them to a mean square of one.

  So learning rates and errors mean the same for every encoder: a mean squared
  error of 1 is what the mean vector alone reaches. Our choice.

  Args:
    vectors: float [I, W], finite.

  Returns:
    float32 [I, W].

  Raises:
    ValueError: a value is not finite, or all vectors are the same.
  """
  vectors = np.asarray(vectors, np.float64)
  if not np.isfinite(vectors).all():
    row = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
    raise ValueError(
      f'The embedding of item {row} is not finite: compute it anew.'
    )
  centred = vectors - vectors.mean(0, keepdims=True)
  scale = np.sqrt((centred**2).mean())
  if scale == 0:
    raise ValueError(
      'All item embeddings are the same vector: SIDs cannot tell items apart. '
      'Check the item texts or sid.embeddings.'
    )
  return (centred / scale).astype(np.float32)


def loss(
  model: Autoencoder,
  params: Any,
  books: jax.Array,
  h: jax.Array,
  quantised: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The RQ-VAE loss with EMA codebooks.

  (|h - h'|^2 + gamma sum_k |r_k - sg(q_k)|^2) / W, mean over the batch. The
  codebook term of GR2.md is missing because EMA takes its place; gradients
  reach the encoder straight through the quantiser.

  Args:
    model: the autoencoder.
    params: its parameters.
    books: float32 [L, C, D].
    h: float32 [B, W], standardised.
    quantised: bool scalar; False trains the plain autoencoder.

  Returns:
    (loss, {'mse': reconstruction error per component, 'commitment': sum of
    squared residuals per item, 'codes': int32 [B, L], 'residuals':
    [B, L, D]}).
  """
  z = model.apply({'params': params}, h, method='encode')
  codes, chosen, residuals = codebook.quantise(books, jax.lax.stop_gradient(z))
  # r_k = z minus constants: one subtraction gives all levels their gradient.
  after = jax.lax.stop_gradient(jnp.cumsum(chosen, axis=1))
  commitment = ((z[:, None, :] - after) ** 2).sum((1, 2)).mean()
  straight = z + jax.lax.stop_gradient(after[:, -1] - z)
  decoded = model.apply(
    {'params': params}, jnp.where(quantised, straight, z), method='decode'
  )
  mse = ((h - decoded) ** 2).mean()
  weight = jnp.where(quantised, model.config.commitment / model.width, 0.0)
  return mse + weight * commitment, {
    'mse': mse,
    'commitment': commitment,
    'codes': codes,
    'residuals': residuals,
  }
