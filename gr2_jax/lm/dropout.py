"""Dropout, for models that are trained from scratch on little data."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
  """Dropout that draws a byte, not a float, for each activation.

  The draws were a third of a training step on CPU. The rate is rounded to a
  multiple of 1/256, and what is kept is scaled by the rounded rate.

  Attributes:
    rate: share that is dropped, below 1.
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Drops activations of x [..., D] where there is an RNG 'dropout'."""
    dropped = round(256 * self.rate)
    if not dropped or not self.has_rng('dropout'):
      return x
    words = (*x.shape[:-1], -(-x.shape[-1] // 4))
    bits = jax.random.bits(self.make_rng('dropout'), words, jnp.uint32)
    drawn = jax.lax.bitcast_convert_type(bits, jnp.uint8)
    drawn = drawn.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    return jnp.where(drawn >= dropped, x * (256 / (256 - dropped)), 0.0)
