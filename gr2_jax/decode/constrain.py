"""Constrained decoding of the answer: a state machine on fixed shapes.

An answer is `open, words, top, sid_begin, SID_1, sid_end, mid, SID_1, sep, ..,
SID_K, close, eos` (`text.answer`). With the constraint on, `open` is forced and
the words are free text and citations; `top` is forced when their budget is
spent. Behind it one candidate is named, and the list can only become a
permutation of the candidates that begins with it. A citation among the words
spells one of the citable items, and begins only where it fits into the budget.
GR2 states no constraint; the machine is our choice.

Letters: Q prompts, G rollouts, K candidates, M citable items, L levels, C
codes, A = max(K, M, 1) allowed ids.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.decode.items import Items
from gr2_jax.text import answer, lengths

# The `place` of all words: far below those behind `top`.
WORDS = -1_000_000


@flax.struct.dataclass
class State:
  """Where each rollout stands in its answer.

  Attributes:
    place: int32 [Q, G], tokens written since `mid`: `-lengths.head(L)` right
      after `top`, from 0 on in the list; `WORDS` before `top`.
    cited: int32 [Q, G], tokens of the open citation among the words that are
      written behind its `sid_begin`; -1 outside of one.
    citable: bool [Q, G, M], items whose SID begins with them.
    used: bool [Q, G, K], candidates already in the list.
    live: bool [Q, G, K], unused candidates whose SID begins with the codes
      written in the current entry of the list, or behind `top`.
  """

  place: jax.Array
  cited: jax.Array
  citable: jax.Array
  used: jax.Array
  live: jax.Array


def check_length(
  fmt: answer.AnswerFormat,
  num_candidates: int,
  max_new_tokens: int,
  explanation_tokens: int,
  words_only: bool = False,
) -> None:
  """Raises ValueError where a constrained answer does not fit.

  Args:
    fmt: the answer format.
    num_candidates: K.
    max_new_tokens: of the answer.
    explanation_tokens: the budget of the words.
    words_only: whether the answer ends with `top`.
  """
  if words_only:
    need, what = lengths.words(explanation_tokens), 'answer of words alone'
  elif num_candidates < 1:
    raise ValueError(
      'Constrained decoding needs candidates, but candidate_sids has none: '
      'give lists, or decode without the constraint.'
    )
  else:
    need = lengths.answer(fmt.levels, num_candidates, explanation_tokens)
    what = f'answer of {num_candidates} candidates'
  if max_new_tokens < need:
    raise ValueError(
      f'A constrained {what} with explanation_tokens={explanation_tokens} '
      f'takes up to {need} tokens, more than max_new_tokens={max_new_tokens}: '
      'raise max_new_tokens or lower explanation_tokens.'
    )


@functools.lru_cache(maxsize=8)
def banned(fmt: answer.AnswerFormat, vocab_size: int) -> np.ndarray:
  """Returns which ids no free place of the words may hold.

  They are what would break the JSON text (`fmt.unsafe`), the delimiters but
  `top`, `eos`, `pad`, `sid_end`, the SID tokens, which stand behind a
  `sid_begin` alone, and the rows after them that only round the vocabulary's
  size up.

  Args:
    fmt: the answer format.
    vocab_size: V.

  Returns:
    bool [V].
  """
  table = np.zeros(vocab_size, bool)
  table[[fmt.open, fmt.mid, fmt.sep, fmt.close, fmt.eos, fmt.pad]] = True
  table[[*fmt.unsafe, fmt.sid_end]] = True
  table[fmt.sid_offset :] = True
  table.flags.writeable = False
  return table


def start(items: Items, num_samples: int) -> State:
  """Returns the state before the first token.

  Args:
    items: of Q prompts.
    num_samples: G.

  Returns:
    The state of [Q, G] rollouts.
  """
  shape = (items.candidate_mask.shape[0], num_samples)
  many = lambda mask: jnp.broadcast_to(mask[:, None], (*shape, mask.shape[-1]))
  return State(
    place=jnp.full(shape, WORDS, jnp.int32),
    cited=jnp.full(shape, -1, jnp.int32),
    citable=many(items.citable_mask),
    used=many(jnp.zeros_like(items.candidate_mask)),
    live=many(items.candidate_mask),
  )


def _level(state: State, fmt: answer.AnswerFormat) -> jax.Array:
  """Returns which code comes next; none where outside 0..L-1: int32 [Q, G]."""
  behind = state.place + fmt.levels + 2
  ranked = jnp.where(state.place < 0, behind, state.place % (fmt.levels + 1))
  return jnp.where(state.place == WORDS, state.cited, ranked)


def _codes_at(sids: jax.Array, level: jax.Array) -> jax.Array:
  """Picks each item's code at one level a rollout: [Q, G, N]."""
  index = jnp.clip(level, 0, sids.shape[-1] - 1)[..., None, None]
  return jnp.take_along_axis(sids[:, None], index, axis=-1)[..., 0]


def allowed(
  state: State,
  step: jax.Array,
  items: Items,
  fmt: answer.AnswerFormat,
  explanation_tokens: int,
) -> jax.Array:
  """Names the ids that may come next.

  Args:
    state: the state after `step` tokens.
    step: int32 scalar, tokens written so far.
    items: what may be named.
    fmt: the answer format.
    explanation_tokens: the budget of the words.

  Returns:
    int32 [Q, G, A]: distinct ids, padded with -1. A row of negative numbers is
    free but for the ids of `banned`, and for `id` where it begins with
    `-2 - id`: for `sid_begin` where no citation fits.
  """
  words, level = state.place == WORDS, _level(state, fmt)
  last = items.candidate_mask.sum(-1)[:, None] * (fmt.levels + 1) - 1
  forced = jnp.where(level == fmt.levels, fmt.sep, -1)
  forced = jnp.where(state.place == last, fmt.close, forced)
  forced = jnp.where(state.place > last, fmt.eos, forced)
  for back, token in (
    (1, fmt.mid),
    (2, fmt.sid_end),
    (lengths.head(fmt.levels), fmt.sid_begin),
  ):
    forced = jnp.where(state.place == -back, token, forced)

  none = ~items.citable_mask.any(-1)[:, None]
  late = step + fmt.levels + 1 > explanation_tokens
  free = jnp.where(none | late, -2 - fmt.sid_begin, -1)
  outside = jnp.where(step > explanation_tokens, fmt.top, free)
  outside = jnp.where(step == 0, fmt.open, outside)
  inside = jnp.where(level == fmt.levels, fmt.sid_end, -1)
  forced = jnp.where(words, jnp.where(state.cited < 0, outside, inside), forced)

  first = (np.arange(items.ids) == 0)[None, None]
  alone = jnp.where(first, forced[..., None], -1)
  coding = (level >= 0) & (level < fmt.levels) & (forced < 0)
  choices = _choices(state, words, level, items, fmt)
  return jnp.where(coding[..., None], choices, alone).astype(jnp.int32)


def _choices(
  state: State,
  words: jax.Array,
  level: jax.Array,
  items: Items,
  fmt: answer.AnswerFormat,
) -> jax.Array:
  """Returns the next codes' ids, of citable items or candidates: [Q, G, A]."""
  pick = lambda cited, ranked: jnp.where(
    words[..., None],
    _widen(cited, items.ids),
    _widen(ranked, items.ids),
  )
  codes = pick(
    _codes_at(items.citable_sids, level), _codes_at(items.candidate_sids, level)
  )
  live = pick(state.citable, state.live)
  ids = codes + fmt.level_start(level)[..., None]
  # Items that share a prefix name the same id: only the first may, or the
  # normaliser would count it twice.
  same = ids[..., :, None] == ids[..., None, :]
  earlier = np.tri(items.ids, k=-1, dtype=bool)[None, None]
  double = (same & live[..., None, :] & earlier).any(-1)
  return jnp.where(live & ~double, ids, -1)


def _widen(x: jax.Array, size: int) -> jax.Array:
  """Pads the last axis to a size with zeros."""
  missing = size - x.shape[-1]
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])


def advance(
  state: State, tokens: jax.Array, items: Items, fmt: answer.AnswerFormat
) -> State:
  """Reads one more token of each rollout.

  Args:
    state: the state before it.
    tokens: int32 [Q, G], ids that `allowed` named, or free ones.
    items: what may be named.
    fmt: the answer format.

  Returns:
    The state after it.
  """
  words, level = state.place == WORDS, _level(state, fmt)
  code = (tokens - fmt.level_start(level))[..., None]
  coding = (level >= 0) & (level < fmt.levels)

  begins = words & (state.cited < 0) & (tokens == fmt.sid_begin)
  match = _codes_at(items.citable_sids, level) == code
  reads = (words & coding)[..., None]
  citable = jnp.where(reads, state.citable & match, state.citable)
  citable = jnp.where(begins[..., None], items.citable_mask[:, None], citable)
  goes_on = words & (state.cited >= 0) & (state.cited < fmt.levels)
  cited = jnp.where(goes_on, state.cited + 1, jnp.where(begins, 0, -1))

  match = _codes_at(items.candidate_sids, level) == code
  reads = (~words & coding)[..., None]
  live = jnp.where(reads, state.live & match, state.live)
  # Of candidates with one SID, the first that is left counts as named.
  named = live & (jnp.cumsum(live, axis=-1) == 1)
  # The one behind `top` stays live: it alone can begin the list.
  ends = ((state.place >= 0) & (level == fmt.levels - 1))[..., None]
  used = state.used | (ends & named)
  live = jnp.where(ends, items.candidate_mask[:, None] & ~used, live)

  begun = words & (state.cited < 0) & (tokens == fmt.top)
  place = jnp.where(words, WORDS, state.place + 1)
  place = jnp.where(begun, -lengths.head(fmt.levels), place)
  return State(place=place, cited=cited, citable=citable, used=used, live=live)
