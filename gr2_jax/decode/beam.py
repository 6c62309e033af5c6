"""Generative retrieval: beam search over semantic IDs of the catalogue only.

Each level keeps the W prefixes with the largest score among those that the
prefix index knows, so no beam ever names an item that does not exist. The score
of an item is the sum over levels of log P(code | prompt, codes before). Our
choice: a level's probabilities are normalised over all of its C codes, legal or
not. This leaves out what a trained model puts on tokens of other kinds, which
is next to nothing, and saves the softmax over the whole vocabulary; and a
prefix does not gain by having few legal children, as it would if only those
were counted.

Equal scores go to the smaller SID, compared code by code, at every level.

Letters: Q prompts, W beams, P prompt tokens, L levels, C codes, E excluded
items.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax.decode import cache
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, tables, tails
from gr2_jax.sid import index as sid_index
from gr2_jax.text import answer


@functools.partial(jax.jit, static_argnames=('config', 'fmt', 'width'))
def beam_search(
  config: lm_config.LMConfig,
  params: Any,
  prompts: jax.Array,
  valid: jax.Array,
  index: sid_index.PrefixIndex,
  *,
  fmt: answer.AnswerFormat,
  width: int,
  exclude: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Finds the W best items for each prompt; jitted.

  Args:
    config: shape of the model.
    params: its parameters.
    prompts: int32 [Q, P], padded on the right, each ending where a SID begins.
    valid: bool [Q, P], the tokens of each prompt.
    index: of the catalogue's SIDs.
    fmt: has the ids of the SID tokens in the vocabulary.
    width: W. With W at least the number of items the search is exhaustive.
    exclude: int32 [Q, E], items that may not be returned; -1 pads. A prefix
      with no other item under it is not followed either.

  Returns:
    (items int32 [Q, W], best first; scores float32 [Q, W]). Where fewer than W
    items can be found, items are -1 and scores -inf.

  Raises:
    ValueError: index and format disagree.
  """
  _check(index, fmt)
  model = functools.partial(decoder.Decoder(config).apply, {'params': params})
  read = cache.read(model, prompts, valid)
  queries, hidden = len(prompts), read.last
  tail = tails.empty(config, queries, width, fmt.levels - 1)
  scores = jnp.zeros((queries, 1), jnp.float32)
  lo, hi = (jnp.broadcast_to(x, (queries, 1)) for x in index.root())
  dead, rows = _dead_prefixes(index, exclude)
  for level in range(fmt.levels):
    logits = _level_logits(config, params, hidden, fmt, level)
    legal = index.children(lo, hi, level)
    legal &= ~_dead_children(index, lo, hi, dead[level], rows=rows, level=level)
    total = scores[..., None] + jax.nn.log_softmax(logits, axis=-1)
    total = jnp.where(legal, total, -jnp.inf)
    final = level == fmt.levels - 1
    scores, parents, codes = _best(total, width, final)
    lo, hi = (jnp.take_along_axis(x, parents, axis=1) for x in (lo, hi))
    lo, hi = index.narrow(lo, hi, level, codes)
    if not final:
      tail = tails.reorder(tail, parents) if level else tail
      tokens = fmt.level_start(level) + codes
      hidden, tail = cache.extend(model, read, tokens, tail, level)
  return jnp.where(jnp.isfinite(scores), index.item(lo), -1), scores


def _check(index: sid_index.PrefixIndex, fmt: answer.AnswerFormat) -> None:
  if (index.levels, index.codes) != (fmt.levels, fmt.codes):
    raise ValueError(
      f'The index has {index.levels} levels of {index.codes} codes and the '
      f'vocabulary {fmt.levels} of {fmt.codes}: both must come from one run of '
      'the sid stage.'
    )


def _level_logits(
  config: lm_config.LMConfig,
  params: Any,
  hidden: jax.Array,
  fmt: answer.AnswerFormat,
  level: int,
) -> jax.Array:
  """Projects states [Q, W, D] on the C codes of a level only: [Q, W, C]."""
  start = fmt.level_start(level)
  table = tables.output(config, params)
  table = jax.lax.slice_in_dim(table, start, start + fmt.codes)
  return tables.unembed(config, table, hidden)


def _best(
  total: jax.Array, width: int, final: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Keeps W of all children [Q, W, C]: scores, parents and codes, all [Q, W].

  Beams are kept in the order of their prefixes, so that the place among all
  children orders by prefix too, and `top_k`, which takes the lower place of
  equal ones, breaks ties by SID. Only the last level's come by score.
  """
  queries, beams, codes = total.shape
  flat = total.reshape(queries, beams * codes)
  short = width - beams * codes
  if short > 0:
    flat = jnp.pad(flat, ((0, 0), (0, short)), constant_values=-jnp.inf)
  scores, place = jax.lax.top_k(flat, width)
  if not final:
    place = jnp.sort(place, axis=-1)
    scores = jnp.take_along_axis(flat, place, axis=1)
  parents = jnp.minimum(place // codes, beams - 1)
  return scores, parents, place % codes


def _dead_prefixes(
  index: sid_index.PrefixIndex, exclude: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Finds the prefixes of excluded items under which nothing else is left.

  Args:
    index: of the catalogue.
    exclude: int32 [Q, E], items; -1 pads.

  Returns:
    (bool [L, Q, E]: all items that share the first level + 1 codes of this one
    are excluded; int32 [Q, E]: the row of each excluded item in the index,
    ascending, I for padding and repeats).
  """
  items = index.num_items
  rows = index.row_of[jnp.maximum(exclude, 0)]
  rows = jnp.sort(jnp.where(exclude >= 0, rows, items), axis=-1)
  repeat = jnp.pad(rows[:, 1:] == rows[:, :-1], ((0, 0), (1, 0)))
  rows = jnp.sort(jnp.where(repeat, items, rows), axis=-1)
  # Edges ascend with their rows, so equal ones are a run, found by bisection.
  edges = index.edge_of.at[:, rows].get(mode='clip')
  edges = jnp.where((rows < items)[None], edges, items)
  bounds = jnp.concatenate([edges, edges + 1], axis=-1)
  bounds = jax.vmap(jax.vmap(jnp.searchsorted))(edges, bounds)
  first, after = jnp.split(bounds.astype(jnp.int32), 2, axis=-1)
  size = jnp.stack([index.count(rows, level) for level in range(index.levels)])
  return (size == after - first) & (rows < items)[None], rows


def _dead_children(
  index: sid_index.PrefixIndex,
  lo: jax.Array,
  hi: jax.Array,
  dead: jax.Array,
  *,
  rows: jax.Array,
  level: int,
) -> jax.Array:
  """Marks children [Q, W, C] of ranges [Q, W] that lead to nothing."""
  code = index.sids[:, level].at[rows].get(mode='clip')
  inside = (rows[:, None] >= lo[..., None]) & (rows[:, None] < hi[..., None])
  # Out of bounds, where the write is dropped, for what must not be marked.
  code = jnp.where(inside & dead[:, None], code[:, None], index.codes)
  marked = jnp.zeros((*lo.shape, index.codes), bool)
  query, beam, _ = jnp.indices(code.shape, sparse=True)
  return marked.at[query, beam, code].set(True, mode='drop')
