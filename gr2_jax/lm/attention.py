"""Attention and its masks: within rows, and of groups that share a prompt.

Caches: a prompt's keys and values are [Q, M, P, H], a tail's [Q, G, M, S, H].
Keys of float32 products lie transposed, [.., H, P] and [.., H, S]: as the
scores' product reads them. XLA on CPU took twice as long where they have the
layout of values, and the scores were a third of a decoding step (measured with
AVX2). Layout and order for bfloat16 were measured with units for bfloat16.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.lm import dots
from gr2_jax.lm.config import LMConfig

KV = tuple[jax.Array, jax.Array]

# Logical axes of the caches.
PROMPT_AXES = ('batch', 'kv_heads', None, None)
TAIL_AXES = ('batch', None, 'kv_heads', None, None)

# Queries that `attend` handles at a time (our choice): on a CPU that saves a
# quarter of an RL step with prompts of 1,024, and nothing with 256.
_BLOCK = 128
# Finite, so that a row with nothing to attend to gives no NaN.
MASKED = -1e30


def causal_mask(
  length: int,
  segments: jax.Array | None,
  places: jax.Array | None = None,
) -> jax.Array:
  """Builds the mask of packed rows.

  Args:
    length: T.
    segments: int [B, T] or None for one segment a row.
    places: int [B], the one query of each row, or None for all.

  Returns:
    bool [B or 1, T or 1, T]: may query t attend to key s.
  """
  if places is None:
    mask = jnp.tril(jnp.ones((1, length, length), bool))
    asking = segments
  else:
    mask = jnp.arange(length)[None, None] <= places[:, None, None]
    if segments is not None:
      asking = jnp.take_along_axis(segments, places[:, None], axis=1)
  if segments is not None:
    mask = mask & (asking[:, :, None] == segments[:, None, :])
  return mask


def tail_mask(length: int, slots: int, index: jax.Array | int) -> jax.Array:
  """Builds the mask of a tail: slots up to `index` + t; bool [T, S]."""
  last = index + jnp.arange(length)
  return jnp.arange(slots)[None, :] <= last[:, None]


def frequencies(
  head_dim: int, theta: float, scaling: tuple[float, ...]
) -> np.ndarray:
  """Returns the rotary frequencies, float32 [H/2], radians a position.

  Args:
    head_dim: H.
    theta: base of the frequencies.
    scaling: of `LMConfig.rope_scaling`.
  """
  half = head_dim // 2
  frequency = theta ** (-np.arange(half, dtype=np.float64) / half)
  if scaling:
    # Llama 3.1: frequencies that turn less than `low` times in the original
    # length are divided by the factor, those that turn more than `high` times
    # stay, and between them the two are mixed.
    factor, low, high, original = scaling
    turns = original * frequency / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    frequency = frequency * (kept + (1 - kept) / factor)
  return frequency.astype(np.float32)


def rotary_angles(
  positions: jax.Array | None,
  length: int,
  head_dim: int,
  theta: float,
  scaling: tuple[float, ...] = (),
) -> KV:
  """Returns cosine and sine of the rotation at each position.

  They are read from a table that is made while tracing. Computed in the
  program, XLA on CPU fuses them into their readers, and each head of each layer
  computes them again: a tenth of reading prompts.

  Args:
    positions: int [..., T], or None for 0..T-1 in one row.
    length: positions lie below it; those that do not give NaN.
    head_dim: H.
    theta: base of the frequencies.
    scaling: of `LMConfig.rope_scaling`.

  Returns:
    Two float32 [..., T, H/2].
  """
  places = np.arange(length, dtype=np.float32)
  angle = places[:, None] * frequencies(head_dim, theta, scaling)
  table = np.cos(angle), np.sin(angle)
  if positions is None:
    return tuple(jnp.asarray(x[None]) for x in table)
  return tuple(jnp.asarray(x).at[positions].get(mode='fill') for x in table)


def rotate(x: jax.Array, angles: KV) -> jax.Array:
  """Turns x [..., T, N, H] by rotary angles [..., T, H/2], halves paired."""
  cos, sin = (a[..., None, :] for a in angles)
  a, b = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attend(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, bf16: bool
) -> jax.Array:
  """Attends within each row, of all places to those up to them.

  Long rows are cut into blocks of queries, each of which meets only the keys
  up to its end.

  Args:
    q: [B, T, N, H], scaled.
    k: [B, S, M, H].
    v: [B, S, M, H].
    mask: bool [B or 1, T, S]; causal where T is S.
    bf16: operand type of the products.

  Returns:
    [B, T, N, H].
  """
  length = q.shape[1]
  if length < k.shape[1] or length < 2 * _BLOCK:
    return _attend(q, k, v, mask, bf16)
  return jnp.concatenate(
    [
      _attend(
        q[:, begin : begin + _BLOCK],
        k[:, : begin + _BLOCK],
        v[:, : begin + _BLOCK],
        mask[:, begin : begin + _BLOCK, : begin + _BLOCK],
        bf16,
      )
      for begin in range(0, length, _BLOCK)
    ],
    axis=1,
  )


def _attend(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, bf16: bool
) -> jax.Array:
  batch, length, heads, width = q.shape
  kv_heads = k.shape[2]
  q = q.reshape(batch, length, kv_heads, heads // kv_heads, width)
  scores = dots.einsum('btmrh,bsmh->bmrts', q, k, bf16)
  scores = jnp.where(mask[:, None, None], scores, MASKED)
  # Divided after the product: on CPU a backward pass through jax.nn.softmax
  # took two and a half times as long.
  peak = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
  weights = jnp.exp(scores - peak)
  out = dots.einsum('bmrts,bsmh->btmrh', weights, v, bf16)
  out /= jnp.moveaxis(weights.sum(-1), 3, 1)[..., None]
  return out.reshape(batch, length, heads, width)


def cache_dtype(config: LMConfig) -> Any:
  """Returns the type of cached keys and values: that of the operands."""
  return jnp.bfloat16 if config.bf16_matmul else jnp.float32


def to_cache(keys: jax.Array, bf16: bool) -> jax.Array:
  """Turns keys [.., S, H] into the layout of caches."""
  return keys if bf16 else jnp.swapaxes(keys, -1, -2)


def attend_shared(
  q: jax.Array,
  prompt: KV,
  tail: KV,
  prompt_valid: jax.Array,
  mask: jax.Array,
  *,
  bf16: bool,
) -> jax.Array:
  """Attends to one prompt per group and to each member's own tail.

  The G x T x N/M queries that read one prompt cache are the rows of one
  product, so the cache is read once and never copied per member.

  Args:
    q: [Q, G, T, N, H], scaled.
    prompt: keys and values [Q, M, P, H], as cached.
    tail: keys and values [Q, G, M, S, H], as cached.
    prompt_valid: bool [Q, P].
    mask: bool [T, S] of all tails, or [Q, G, T, S] of each.
    bf16: operand type of the products.

  Returns:
    [Q, G, T, N, H].
  """
  kv_heads = prompt[0].shape[1]
  shape = q.shape
  q = q.reshape(*shape[:3], kv_heads, shape[3] // kv_heads, shape[4])
  p, s = ('ph', 'sh') if bf16 else ('hp', 'hs')
  first = dots.einsum(f'qgtmrh,qm{p}->qmgrtp', q, prompt[0], bf16)
  # With one query a member, a product that takes the batch axes in the order of
  # the tail reads the cache as it lies, and only few scores have to move: a
  # quarter of a decoding step on CPU. With many queries it is the other way.
  decoding = shape[2] == 1
  order = 'qgm' if decoding else 'qmg'
  own = dots.einsum(f'qgtmrh,qgm{s}->{order}rts', q, tail[0], bf16)
  own = jnp.swapaxes(own, 1, 2) if decoding else own
  first = jnp.where(prompt_valid[:, None, None, None, None, :], first, MASKED)
  # The scores are [Q, M, G, R, T, S].
  if mask.ndim == 2:
    mask = mask[None, None, None, None]
  else:
    mask = mask[:, None, :, None]
  own = jnp.where(mask, own, MASKED)
  peak = jnp.maximum(
    jax.lax.stop_gradient(first.max(-1, keepdims=True)),
    jax.lax.stop_gradient(own.max(-1, keepdims=True)),
  )
  first, own = jnp.exp(first - peak), jnp.exp(own - peak)
  total = first.sum(-1) + own.sum(-1)
  out = dots.einsum('qmgrtp,qmph->qgtmrh', first, prompt[1], bf16)
  own = jnp.swapaxes(own, 1, 2) if decoding else own
  out += dots.einsum(f'{order}rts,qgmsh->qgtmrh', own, tail[1], bf16)
  out /= jnp.moveaxis(total, (1, 4), (3, 2))[..., None]
  return out.reshape(shape)
