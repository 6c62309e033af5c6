"""The optional terms of the RQ-VAE loss: diversity and contrast.

Letters: B items, L levels, C codes a level, D width of the latent vector.
"""

import jax
import jax.numpy as jnp


def diversity(residuals: jax.Array, books: jax.Array) -> jax.Array:
  """Returns C sum_j p_j^2, mean over the levels: 1 where all codes share alike.

  GR2's technique 3 [P]; p_j is the share of the batch on code j. A hard share
  has no gradient: ours is softmax(-|r - e_j|^2 / s), s the mean squared
  distance to the nearest code [our choice].

  Args:
    residuals: float32 [B, L, D], r_k.
    books: float32 [L, C, D].

  Returns:
    float32 scalar in 1..C.
  """
  distance = (
    (residuals**2).sum(-1)[..., None]
    - 2 * jnp.einsum('bld,lcd->blc', residuals, books)
    + (books**2).sum(-1)[None]
  )
  scale = jax.lax.stop_gradient(distance.min(-1).mean(0))
  soft = jax.nn.softmax(-distance / (scale[None, :, None] + 1e-6), axis=-1)
  share = soft.mean(0)
  return books.shape[1] * (share**2).sum(-1).mean()


def info_nce(
  anchors: jax.Array,
  positives: jax.Array,
  anchor_ids: jax.Array,
  positive_ids: jax.Array,
  temperature: float,
) -> jax.Array:
  """Returns InfoNCE by cosine, mean over the anchors that have a positive.

  GR2's technique 6 [P]; the other anchors' positives are the negatives, but
  neither further copies of the own positive nor of the anchor [our choice].

  Args:
    anchors: float [B, D].
    positives: float [B, D], of the same rows.
    anchor_ids: int32 [B], which items they are.
    positive_ids: int32 [B]; -1 where an anchor has none.
    temperature: divides the cosines.

  Returns:
    float32 scalar; 0 where no anchor has a positive.
  """
  left, right = (
    x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-12)
    for x in (anchors, positives)
  )
  logits = left @ right.T / temperature
  other = ~jnp.eye(len(logits), dtype=bool)
  banned = positive_ids[None, :] == positive_ids[:, None]
  banned |= positive_ids[None, :] == anchor_ids[:, None]
  banned |= (positive_ids < 0)[None, :]
  logits = jnp.where(banned & other, -jnp.inf, logits)
  real = positive_ids >= 0
  # Without a positive the whole row may be banned but for its own place.
  losses = jax.nn.logsumexp(logits, axis=-1) - jnp.diagonal(logits)
  return jnp.where(real, losses, 0.0).sum() / jnp.maximum(real.sum(), 1)
