"""What all layers share in one pass, and which places go through them."""

import math

import jax
import jax.numpy as jnp
from flax import struct

from gr2_jax.lm import attention


@struct.dataclass
class Context:
  """What all blocks share in one pass.

  Attributes:
    angles: rotary cosine and sine, [..., T, H/2] each.
    mask: bool [B or 1, T, T] within rows or prompts, or [T, S] of a tail with
      its cache; None where the kernel reads `segments` instead.
    segments: int [B, T] within rows, or None for one segment a row; read only
      without a mask.
    prompt_valid: bool [Q, P] where groups share a prompt, else None.
    index: first slot of the tail cache to write, or None without a cache.
    layer: int32, number of the layer in a scan, whose tail cache is one array
      for all layers; None where each layer has its own.
    keep: whether a pass over rows returns its keys and values.
    last: int32 [B], the one place of each row, or of each prompt before its
      tails, that the next layer gets, or None for all: keys and values are
      made of all places, the rest is not.
    tails: (G, T) where rows are prompts, [P], with their G tails of T tokens
      behind them.
    tail_mask: bool [Q, G, T, T] within each of these tails, or None where they
      are causal.
  """

  angles: attention.KV
  mask: jax.Array | None
  segments: jax.Array | None = None
  prompt_valid: jax.Array | None = None
  index: jax.Array | None = None
  layer: jax.Array | None = None
  last: jax.Array | None = None
  tail_mask: jax.Array | None = None
  keep: bool = struct.field(pytree_node=False, default=False)
  tails: tuple[int, int] | None = struct.field(pytree_node=False, default=None)


def take_place(x: jax.Array, place: jax.Array | None) -> jax.Array:
  """Takes one place of each row.

  Args:
    x: [B, T, ...]; B may be 1 for all rows alike.
    place: int32 [B], or None for all places.

  Returns:
    [B, 1, ...], or x.
  """
  if place is None:
    return x
  x = jnp.broadcast_to(x, (len(place), *x.shape[1:]))
  index = place.reshape(-1, *(1,) * (x.ndim - 1))
  return jnp.take_along_axis(x, index, axis=1)


def for_next_layer(x: jax.Array, context: Context) -> jax.Array:
  """Takes the places of x [B, T, ...] that the next layer gets: `last`."""
  if context.last is None or context.tails is None:
    return take_place(x, context.last)
  prompt, tails = split_tails(x, context)
  return jnp.concatenate([take_place(prompt, context.last), tails], axis=1)


def split_tails(x: jax.Array, context: Context) -> tuple[jax.Array, jax.Array]:
  """Parts prompts and tails of x [Q, P + G * T, ...]."""
  split = x.shape[1] - math.prod(context.tails)
  return x[:, :split], x[:, split:]
