"""The caches of tails: of what follows a prompt, a slot for each token.

A layer's is keys and values [Q, G, M, S, H]; with scanned layers one array
[N, Q, G, M, S, H] holds those of all N layers.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax import sharding
from gr2_jax.lm import attention
from gr2_jax.lm.config import LMConfig


def empty(config: LMConfig, queries: int, group: int, slots: int) -> Any:
  """Makes an empty cache of S slots for [Q, G] members.

  It is split over the batch and, as what attends to it is, over heads.
  """
  layers = (config.layers,) if config.scan else ()
  shape = (*layers, queries, group, config.kv_heads, slots, config.head_dim)

  def layer() -> attention.KV:
    zeros = jnp.zeros(shape, attention.cache_dtype(config))
    kv = attention.to_cache(zeros, config.bf16_matmul), zeros
    axes = (*(None,) * len(layers), *attention.TAIL_AXES)
    return tuple(sharding.constrain(x, *axes) for x in kv)

  return (
    layer() if config.scan else tuple(layer() for _ in range(config.layers))
  )


def slots(tail: Any) -> int:
  """Returns S of a cache."""
  _, values = jax.tree.leaves(tail)[:2]
  return values.shape[-2]


def write(
  tail: attention.KV,
  new: attention.KV,
  layer: jax.Array | None,
  index: jax.Array | int,
  bf16: bool,
) -> tuple[attention.KV, attention.KV]:
  """Writes slots of one layer, in place where XLA may.

  Args:
    tail: the cache of the layer, or of all of them.
    new: keys and values [Q, G, M, T, H] of the layer, as cached.
    layer: which of all; None for a cache of one.
    index: the first slot.
    bf16: operand type of the products, which says how keys lie.

  Returns:
    (the cache, the layer's part of it).
  """

  def put(old: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    start = [0] * old.ndim
    start[axis] = index
    if layer is not None:
      start[0], x = layer, x[None]
    return jax.lax.dynamic_update_slice(old, x, start)

  keys = -2 if bf16 else -1
  tail = put(tail[0], new[0], keys), put(tail[1], new[1], -2)
  if layer is None:
    return tail, tail
  take = jax.lax.dynamic_index_in_dim
  return tail, tuple(take(x, layer, keepdims=False) for x in tail)


def reorder(tail: Any, parents: jax.Array) -> Any:
  """Gives each member the tail of its parent (beam search).

  Args:
    tail: a cache.
    parents: int [Q, G], places in 0..G-1.

  Returns:
    The cache with [q, g] taken from [q, parents[q, g]].
  """

  def take(x: jax.Array) -> jax.Array:
    axes = (1,) * (x.ndim - 5) + parents.shape + (1,) * 3
    return jnp.take_along_axis(x, parents.reshape(axes), axis=x.ndim - 4)

  return jax.tree.map(take, tail)
