"""Writes the rest of an answer whose words are there and whose list is known.

The item after `First:` is that of the list, so the two agree; the words before
may still cite another candidate.

Letters: S slots of the words, K candidates, L levels, T slots of the answer.
"""

import functools

import jax
import jax.numpy as jnp

from gr2_jax.text import answer, lengths


@functools.partial(jax.jit, static_argnames='fmt')
def complete(
  fmt: answer.AnswerFormat,
  tokens: jax.Array,
  mask: jax.Array,
  *,
  candidate_sids: jax.Array,
  candidate_mask: jax.Array,
  order: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Writes what follows `top`: the first item, `mid`, the list and its end.

  Args:
    fmt: the answer format.
    tokens: int32 [.., S], `open`, words and `top`, padded at the end.
    mask: bool [.., S], which were written; where none was, nothing is added.
    candidate_sids: int32 [.., K, L] codes.
    candidate_mask: bool [.., K], False for the padding of short lists.
    order: int [.., K], candidates, best first; read up to the real ones.

  Returns:
    (tokens int32 [.., T], mask bool [.., T]), T = S + L + 3 + K (L + 1) + 1:
    what `lengths.answer` counts where S is `lengths.words`.
  """
  batch, levels = tokens.shape[:-1], fmt.levels
  count = candidate_mask.sum(-1, dtype=jnp.int32)[..., None]

  def numbers(size: int) -> jax.Array:
    return jnp.arange(size, dtype=jnp.int32).reshape((1,) * len(batch) + (-1,))

  def single(token: int) -> jax.Array:
    return jnp.full((*batch, 1), token, jnp.int32)

  codes = jnp.take_along_axis(candidate_sids, order[..., None], axis=-2)
  codes = fmt.sid_tokens(codes)
  place = numbers(order.shape[-1])
  delimiters = jnp.where(place == count - 1, fmt.close, fmt.sep)
  entries = jnp.concatenate([codes, delimiters[..., None]], -1)
  rest = jnp.concatenate(
    [
      single(fmt.sid_begin),
      codes[..., 0, :],
      single(fmt.sid_end),
      single(fmt.mid),
      entries.reshape((*batch, -1)),
      single(fmt.eos),
    ],
    axis=-1,
  )
  # Of a short list the end comes earlier.
  size = lengths.head(levels) + count * (levels + 1) + 1
  rest = jnp.where(numbers(rest.shape[-1]) == size - 1, fmt.eos, rest)

  written = mask.sum(-1, dtype=jnp.int32)[..., None]
  slot = numbers(tokens.shape[-1] + rest.shape[-1]) - written
  tail = jnp.clip(slot, 0, rest.shape[-1] - 1)
  tail = jnp.take_along_axis(rest, tail, axis=-1)
  longer = [(0, 0)] * len(batch) + [(0, rest.shape[-1])]
  whole = jnp.where(slot < 0, jnp.pad(tokens, longer), tail)
  kept = (slot < size) & (written > 0)
  return jnp.where(kept, whole, fmt.pad).astype(jnp.int32), kept
