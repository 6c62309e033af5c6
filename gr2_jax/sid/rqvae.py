"""The RQ-VAE: an autoencoder whose latent vector is a sum of L codes.

GR2, stage 1a; Lee et al., arXiv 2203.01941; Rajput et al., arXiv
2305.05065. Letters: B items, W width of the embedding, D width of the latent
vector, L levels, C codes a level.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gr2_jax.lm import dots
from gr2_jax.sid import codebook, losses
from gr2_jax.sid.config import SidConfig

# Into how many parts a batch is viewed for the products.
_PARTS = 8


class _Mlp(nn.Module):
  """Affine maps with ReLU between them.

  Attributes:
    widths: of the outputs.
    bf16: operand type of the products.
  """

  widths: tuple[int, ...]
  bf16: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def product(x, kernel, *_, **__):
      return dots.einsum('abd,df->abf', x, kernel, self.bf16)

    # The weight gradients of two-dimensional activations miss the fast kernels
    # of a CPU: in bfloat16 they take twice as long or more.
    x = x.reshape(math.gcd(len(x), _PARTS), -1, x.shape[-1])
    for index, width in enumerate(self.widths):
      dense = nn.Dense(width, dot_general=product, name=f'dense_{index}')
      x = dense(nn.relu(x) if index else x)
    return x.reshape(-1, x.shape[-1])


class Autoencoder(nn.Module):
  """Encoder and decoder, mirror images of each other."""

  config: SidConfig
  width: int

  def setup(self):
    """Makes the two halves."""
    hidden, bf16 = self.config.hidden, self.config.bf16_matmul
    self.encoder = _Mlp((*hidden, self.config.latent), bf16)
    self.decoder = _Mlp((*hidden[::-1], self.width), bf16)

  def __call__(self, h: jax.Array) -> jax.Array:
    """Reconstructs vectors [B, W] without quantisation."""
    return self.decoder(self.encoder(h))

  def encode(self, h: jax.Array) -> jax.Array:
    """Maps vectors [B, W] to latent ones [B, D]."""
    return self.encoder(h)

  def decode(self, z: jax.Array) -> jax.Array:
    """Maps latent vectors [B, D] to vectors [B, W]."""
    return self.decoder(z)


def create(
  key: jax.Array, model: Autoencoder, config: SidConfig
) -> dict[str, Any]:
  """Returns 'encoder' and 'decoder', and 'books' [L, C, D] of zeros."""
  params = model.init(key, jnp.zeros((1, model.width)))['params']
  books = jnp.zeros((config.levels, config.codes, config.latent))
  return {**params, 'books': books}


def apply(
  model: Autoencoder, params: dict[str, Any], x: jax.Array, method: str
) -> jax.Array:
  """Runs 'encode' or 'decode' with the parameters of `create`."""
  net = {name: params[name] for name in ('encoder', 'decoder')}
  return model.apply({'params': net}, x, method=method)


def loss(
  params: dict[str, Any],
  model: Autoencoder,
  h: jax.Array,
  quantised: jax.Array,
  pairs: tuple[jax.Array, jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The RQ-VAE loss (GR2, stage 1a).

  (|h - h'|^2 + gamma sum_k |r_k - sg(q_k)|^2 + beta sum_k |sg(r_k) - q_k|^2)
  / W, mean over the batch, plus lambda times the diversity term and the
  weighted contrastive one. With EMA codebooks beta's term is missing. Gradients
  reach the encoder straight through the quantiser.

  Args:
    params: as `create` makes them.
    model: the autoencoder.
    h: float32 [B, W], scaled.
    quantised: bool scalar; False trains the plain autoencoder.
    pairs: for the contrastive term: the items int32 [B], their positives int32
      [B] (-1 for none) and the positives' vectors float32 [B, W].

  Returns:
    (loss, {'mse': reconstruction error per component, 'commitment': sum of
    squared residuals per item, 'codes': int32 [B, L], 'residuals':
    [B, L, D], 'errors': squared error of each item [B]}, and 'diversity' and
    'contrastive' where they are on).
  """
  cfg = model.config
  z = apply(model, params, h, 'encode')
  fixed = jax.lax.stop_gradient(params['books'])
  codes, chosen, residuals = codebook.quantise(fixed, jax.lax.stop_gradient(z))
  # r_k = z minus constants: one subtraction gives all levels their gradient.
  after = jnp.cumsum(chosen, axis=1)
  commitment = ((z[:, None, :] - after) ** 2).sum((1, 2)).mean()
  straight = z + jax.lax.stop_gradient(after[:, -1] - z)
  decoded = apply(model, params, jnp.where(quantised, straight, z), 'decode')
  errors = ((h - decoded) ** 2).sum(-1)
  aux = {
    'mse': errors.mean() / model.width,
    'commitment': commitment,
    'codes': codes,
    'residuals': residuals,
    'errors': errors,
  }
  extra = cfg.commitment / model.width * commitment
  books = fixed if cfg.ema else params['books']
  if not cfg.ema:
    own = books[jnp.arange(cfg.levels)[None, :], codes]
    distance = ((residuals - own) ** 2).sum((1, 2)).mean()
    extra += cfg.codebook / model.width * distance
  if cfg.diversity:
    live = z[:, None, :] - (after - chosen)
    aux['diversity'] = losses.diversity(live, books)
    extra += cfg.diversity * aux['diversity']
  total = aux['mse'] + jnp.where(quantised, extra, 0.0)
  if pairs is not None:
    aux['contrastive'] = _contrast(model, params, z, pairs)
    total += cfg.contrastive * aux['contrastive']
  return total, aux


def _contrast(
  model: Autoencoder,
  params: dict[str, Any],
  z: jax.Array,
  pairs: tuple[jax.Array, jax.Array, jax.Array],
) -> jax.Array:
  items, positives, vectors = pairs
  return losses.info_nce(
    z,
    apply(model, params, vectors, 'encode'),
    items,
    positives,
    model.config.contrastive_temperature,
  )
