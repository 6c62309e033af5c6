"""Reads the ranked list of an answer on token ids, inside jit.

An answer is `open`, explanation, `mid`, K semantic IDs parted by `sep`,
`close`, `eos` (`gr2_jax.text.answer`). How its explanation ends is not read
here: with the constraint on, it cannot end otherwise than with `top` and the
list's first item. No string is ever decoded: the reward of a rollout is
computed where the rollout was sampled.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.text.answer import AnswerFormat


def parse_ranking(
  tokens: jax.Array,
  candidate_sids: jax.Array,
  fmt: AnswerFormat,
  mask: jax.Array | None = None,
  candidate_mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Finds the place of each candidate in the answer's list.

  An answer is valid if it is complete (`open` first, `eos` right after `close`
  and nothing after it), if its explanation holds no token that breaks the JSON
  string, and if its list names each candidate exactly once and nothing else.
  An empty explanation is valid JSON and so valid here [our choice].

  Args:
    tokens: int [.., T], the generated tokens, without the prompt.
    candidate_sids: int [.., K, L] codes in 0..C-1, in pre-rank order; leading
      axes broadcast against those of `tokens`.
    fmt: ids of the answer's delimiters and SID tokens.
    mask: bool [.., T], the tokens that were generated, EOS included; without
      it an answer ends with its first EOS.
    candidate_mask: bool [.., K], False for the padding of short lists.

  Returns:
    positions int32 [.., K], 0-based place of each candidate in the list as far
    as the list can be read, K where it is missing; valid bool [..].

  Raises:
    ValueError: SIDs with another number of levels than the format.
  """
  k, levels = candidate_sids.shape[-2:]
  if levels != fmt.levels:
    raise ValueError(
      f'candidate_sids has {levels} levels and the answer format '
      f'{fmt.levels}: pass codes of shape [.., K, {fmt.levels}].'
    )
  batch = jnp.broadcast_shapes(tokens.shape[:-1], candidate_sids.shape[:-2])
  length = tokens.shape[-1]
  tokens = jnp.broadcast_to(tokens, (*batch, length))
  sids = jnp.broadcast_to(candidate_sids, (*batch, k, levels))
  if mask is None:
    ended = jnp.cumsum(tokens == fmt.eos, axis=-1)
    mask = (ended == 0) | ((ended == 1) & (tokens == fmt.eos))
  mask = jnp.broadcast_to(mask, tokens.shape)
  if candidate_mask is None:
    candidate_mask = jnp.ones((1,) * len(batch) + (k,), bool)
  real = jnp.broadcast_to(candidate_mask, (*batch, k))
  tokens = jnp.where(mask, tokens, -1)

  start, explained = _explanation(tokens, fmt)
  count = real.sum(-1)
  entries, delimiters, last = _list_region(tokens, start, count, k, fmt)
  positions, permuted = _match(entries, sids, real, count, fmt)
  place = jnp.arange(k).reshape((1,) * len(batch) + (k,))
  expected = jnp.where(place == count[..., None] - 1, fmt.close, fmt.sep)
  delimited = (delimiters == expected) | (place >= count[..., None])
  ends = start + count * (levels + 1)
  complete = (last == fmt.eos) & (mask.sum(-1) == ends + 1)
  valid = explained & permuted & delimited.all(-1) & complete & (count > 0)
  return positions, valid


def _explanation(
  tokens: jax.Array, fmt: AnswerFormat
) -> tuple[jax.Array, jax.Array]:
  """Returns where the list starts and whether what precedes it is sound."""
  is_mid = tokens == fmt.mid
  middle = jnp.argmax(is_mid, axis=-1)
  forbidden = (fmt.open, fmt.sep, fmt.close, fmt.eos, fmt.pad, *fmt.unsafe)
  table = np.zeros(max(forbidden) + 2, bool)
  table[list(forbidden)] = True
  bad = jnp.asarray(table)[jnp.clip(tokens, 0, len(table) - 1)]
  index = jnp.arange(tokens.shape[-1]).reshape(
    (1,) * (tokens.ndim - 1) + (tokens.shape[-1],)
  )
  inside = (index > 0) & (index < middle[..., None])
  opened = tokens[..., 0] == fmt.open
  sound = opened & is_mid.any(-1) & ~(bad & inside).any(-1)
  start = jnp.where(is_mid.any(-1), middle + 1, tokens.shape[-1])
  return start, sound


def _list_region(
  tokens: jax.Array,
  start: jax.Array,
  count: jax.Array,
  k: int,
  fmt: AnswerFormat,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Cuts the list into SIDs [.., K, L], delimiters [.., K], last token [..]."""
  width = fmt.levels + 1
  size = k * width + 1
  # Padding by the region's size keeps every read inside the array.
  fill = jnp.full((*tokens.shape[:-1], size), -1, tokens.dtype)
  padded = jnp.concatenate([tokens, fill], axis=-1)
  cut = lambda row, first: jax.lax.dynamic_slice(row, (first,), (size,))
  rows = padded.reshape((-1, padded.shape[-1]))
  region = jax.vmap(cut)(rows, start.ravel()).reshape((*start.shape, size))
  offset = jnp.arange(size).reshape((1,) * start.ndim + (size,))
  at_end = offset == (count * width)[..., None]
  last = jnp.where(at_end, region, 0).sum(-1)
  parts = region[..., :-1].reshape((*start.shape, k, width))
  return parts[..., :-1], parts[..., -1], last


def _match(
  entries: jax.Array,
  sids: jax.Array,
  real: jax.Array,
  count: jax.Array,
  fmt: AnswerFormat,
) -> tuple[jax.Array, jax.Array]:
  """Compares each entry with each candidate: places, and if a permutation."""
  k = sids.shape[-2]
  ids = [
    sids[..., level] + fmt.level_start(level) for level in range(fmt.levels)
  ]
  places = jnp.full(real.shape, k, jnp.int32)
  times = jnp.zeros(real.shape, jnp.int32)
  # Written out over entries and levels: as one comparison [.., K, K, L] with
  # its reductions it took twice the time on CPU.
  for entry in reversed(range(k)):
    same = real & (entry < count)[..., None]
    for level in range(fmt.levels):
      same &= entries[..., entry, level, None] == ids[level]
    places = jnp.where(same, entry, places)
    times += same
  return places, ((times == 1) | ~real).all(-1)
