"""Draws from categorical distributions with one uniform number a row.

`jax.random.categorical` draws noise for every token of the vocabulary, which on
CPU costs more than the model's step; an inverse CDF in two levels (blocks, then
inside the block) needs one number and two short cumulative sums. No block lies
on two parts of the `tensor` axis: otherwise a step of decoding would gather the
logits.
"""

import math

import jax
import jax.numpy as jnp

# The vocabulary is a multiple of it.
_BLOCK = 64


def _block() -> int:
  """Returns a size of blocks that the devices which split V do not cut."""
  mesh = jax.sharding.get_abstract_mesh()
  split = 1 if mesh.empty else mesh.shape['tensor']
  return _BLOCK // math.gcd(_BLOCK, split)


def draw(uniform: jax.Array, logits: jax.Array) -> jax.Array:
  """Draws one index a row from softmax(logits).

  Args:
    uniform: float32 [...], in [0, 1).
    logits: float32 [..., V]; at least one is finite. An index whose weight
      exp(logit - max) underflows to 0 is never drawn.

  Returns:
    int32 [...] indices.
  """
  size = logits.shape[-1]
  weights = jnp.exp(logits - logits.max(-1, keepdims=True))
  if size <= _BLOCK:
    return _pick(weights, uniform)[0]
  width = _block()
  pad = [(0, 0)] * (logits.ndim - 1) + [(0, -size % width)]
  blocks = jnp.pad(weights, pad)
  blocks = blocks.reshape(*logits.shape[:-1], -1, width)
  block, rest = _pick(blocks.sum(-1), uniform)
  inner = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)
  return block * width + _pick(inner[..., 0, :], rest)[0]


def _pick(
  weights: jax.Array, uniform: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns where the CDF passes `uniform`, and how far into that weight."""
  total = jnp.cumsum(weights, axis=-1)
  target = uniform[..., None] * total[..., -1:]
  place = jax.lax.broadcasted_iota(jnp.int32, weights.shape, weights.ndim - 1)
  positive = weights > 0
  # Rounding may leave `target` at the very end, or a sum below the one before
  # it: neither may choose an index of weight 0.
  last = jnp.where(positive, place, 0).max(-1, keepdims=True)
  index = jnp.where(positive & (total > target), place, last)
  index = index.min(-1, keepdims=True)
  chosen = jnp.take_along_axis(weights, index, axis=-1)
  before = jnp.take_along_axis(total, index, axis=-1) - chosen
  rest = jnp.clip((target - before) / chosen, 0.0, 1.0)
  return index[..., 0], rest[..., 0]


def choose(
  uniform: jax.Array, logits: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Draws from softmax(logits / temperature), or takes the largest at 0.

  Args:
    uniform: float32 [...], in [0, 1).
    logits: float32 [..., V].
    temperature: float32 scalar, may be traced; at 0 the first largest wins.

  Returns:
    int32 [...] indices.
  """
  return jax.lax.cond(
    temperature > 0,
    lambda: draw(uniform, logits / temperature),
    lambda: _largest(logits),
  )


def _largest(logits: jax.Array) -> jax.Array:
  """Returns the first largest index, int32 [...]; the last of a row of NaN.

  Two plain reductions: XLA's argmax is scalar on a CPU, and took three to eight
  times as long.
  """
  last = logits.shape[-1] - 1
  place = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  peak = logits.max(-1, keepdims=True)
  return jnp.where(logits == peak, place, last).min(-1)


def choose_among(
  uniform: jax.Array,
  logits: jax.Array,
  temperature: jax.Array,
  allowed: jax.Array,
) -> jax.Array:
  """Does `choose` among some ids only.

  Args:
    uniform: float32 [...], in [0, 1).
    logits: float32 [..., V].
    temperature: float32 scalar, may be traced.
    allowed: int32 [..., A], distinct ids, -1 pads.

  Returns:
    int32 [...] ids; -1 where no id is allowed.
  """
  present = allowed >= 0
  inside = jnp.take_along_axis(logits, jnp.maximum(allowed, 0), axis=-1)
  inside = jnp.where(present, inside, -jnp.inf)
  inside = jnp.where(present.any(-1, keepdims=True), inside, 0.0)
  place = choose(uniform, inside, temperature)
  return jnp.take_along_axis(allowed, place[..., None], axis=-1)[..., 0]
