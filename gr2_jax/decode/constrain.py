"""Constrained decoding of the answer: a state machine on fixed shapes.

An answer is `open, explanation, mid, SID_1, sep, .., SID_K, close, eos`
(`text.answer`). With the constraint on, `open` is forced, the explanation is
free but for the ids of `banned`, `mid` is forced when the explanation's budget
is spent, and the list can only become a permutation of the candidates: at each
of its positions the machine names the token ids allowed there. GR2 states no
constraint; the machine is our choice.

Letters: Q prompts, G rollouts, K candidates, L levels, C codes, A allowed ids.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.text import answer

# exp() of it is exactly 0 in float32 at temperatures up to about 90, and it
# stays above what `lm.logps` puts at the places that are not allowed.
BANNED_LOGIT = -1e4


@flax.struct.dataclass
class State:
  """Where each rollout stands in its answer.

  Attributes:
    place: int32 [Q, G], tokens written since `mid`; -1 before it.
    used: bool [Q, G, K], candidates already in the list.
    live: bool [Q, G, K], unused candidates whose SID begins with the codes
      written in the current entry of the list.
  """

  place: jax.Array
  used: jax.Array
  live: jax.Array


def answer_length(
  fmt: answer.AnswerFormat, num_candidates: int, explanation_tokens: int
) -> int:
  """Returns the tokens of the longest constrained answer, `eos` included."""
  return explanation_tokens + num_candidates * (fmt.levels + 1) + 3


def check_length(
  fmt: answer.AnswerFormat,
  num_candidates: int,
  max_new_tokens: int,
  explanation_tokens: int,
) -> None:
  """Raises ValueError where a constrained answer does not fit.

  Args:
    fmt: the answer format.
    num_candidates: K.
    max_new_tokens: of the answer.
    explanation_tokens: the explanation's budget.
  """
  if num_candidates < 1:
    raise ValueError(
      'Constrained decoding needs candidates, but candidate_sids has none: '
      'give lists, or decode without the constraint.'
    )
  need = answer_length(fmt, num_candidates, explanation_tokens)
  if max_new_tokens < need:
    raise ValueError(
      f'A constrained answer of {num_candidates} candidates with '
      f'explanation_tokens={explanation_tokens} takes up to {need} tokens, '
      f'more than max_new_tokens={max_new_tokens}: raise max_new_tokens or '
      'lower explanation_tokens.'
    )


@functools.lru_cache(maxsize=8)
def banned(fmt: answer.AnswerFormat, vocab_size: int) -> np.ndarray:
  """Returns which ids no explanation may hold.

  They are what would break the JSON text (`fmt.unsafe`), the delimiters but
  `mid`, `eos`, `pad` and the rows after the last SID token that only round the
  vocabulary's size up. SID tokens are free: explanations cite items.

  Args:
    fmt: the answer format.
    vocab_size: V.

  Returns:
    bool [V].
  """
  table = np.zeros(vocab_size, bool)
  table[[fmt.open, fmt.sep, fmt.close, fmt.eos, fmt.pad]] = True
  table[list(fmt.unsafe)] = True
  table[fmt.sid_offset + fmt.levels * fmt.codes :] = True
  table.flags.writeable = False
  return table


def ban(logits: jax.Array, fmt: answer.AnswerFormat) -> jax.Array:
  """Takes the banned ids out of the distribution of explanations.

  One static mask serves every position, sampler and trainer alike: outside the
  explanation a banned id stands only where it is the one allowed id, and its
  log-probability among one is 0 whatever its logit.

  Args:
    logits: float32 [..., V].
    fmt: the answer format.

  Returns:
    float32 [..., V], the banned ids at `BANNED_LOGIT`.
  """
  table = banned(fmt, logits.shape[-1])
  table = table.reshape((1,) * (logits.ndim - 1) + table.shape)
  return jnp.where(table, jnp.float32(BANNED_LOGIT), logits)


def start(candidate_mask: jax.Array, num_samples: int) -> State:
  """Returns the state before the first token.

  Args:
    candidate_mask: bool [Q, K], False for the padding of short lists.
    num_samples: G.

  Returns:
    The state of [Q, G] rollouts.
  """
  queries, candidates = candidate_mask.shape
  shape = (queries, num_samples, candidates)
  return State(
    place=jnp.full(shape[:2], -1, jnp.int32),
    used=jnp.zeros(shape, bool),
    live=jnp.broadcast_to(candidate_mask[:, None], shape),
  )


def _codes_at(candidate_sids: jax.Array, level: jax.Array) -> jax.Array:
  """Picks each candidate's code at one level a rollout: [Q, G, K]."""
  levels = candidate_sids.shape[-1]
  index = jnp.minimum(level, levels - 1)[..., None, None]
  return jnp.take_along_axis(candidate_sids[:, None], index, axis=-1)[..., 0]


def allowed(
  state: State,
  step: jax.Array,
  candidate_sids: jax.Array,
  candidate_mask: jax.Array,
  fmt: answer.AnswerFormat,
  explanation_tokens: int,
) -> jax.Array:
  """Names the ids that may come next.

  Args:
    state: the state after `step` tokens.
    step: int32 scalar, tokens written so far.
    candidate_sids: int32 [Q, K, L] codes.
    candidate_mask: bool [Q, K].
    fmt: the answer format.
    explanation_tokens: the explanation's budget.

  Returns:
    int32 [Q, G, K]: distinct ids, padded with -1; a row of all -1 is free.
  """
  entry = fmt.levels + 1
  level = state.place % entry
  choices = _codes_at(candidate_sids, level)
  choices += (fmt.sid_offset + level * fmt.codes)[..., None]
  # Candidates that share a prefix name the same id: only the first may, or the
  # normaliser would count it twice.
  same = choices[..., :, None] == choices[..., None, :]
  num_candidates = choices.shape[-1]
  earlier = np.tri(num_candidates, k=-1, dtype=bool)[None, None]
  double = (same & state.live[..., None, :] & earlier).any(-1)
  choices = jnp.where(state.live & ~double, choices, -1)

  length = candidate_mask.sum(-1)[:, None] * entry
  forced = jnp.where(level == fmt.levels, fmt.sep, -1)
  forced = jnp.where(state.place == length - 1, fmt.close, forced)
  forced = jnp.where(state.place >= length, fmt.eos, forced)
  spent = step > explanation_tokens
  before = jnp.where(step == 0, fmt.open, jnp.where(spent, fmt.mid, -1))
  listing = state.place >= 0
  forced = jnp.where(listing, forced, before)

  first = (np.arange(num_candidates) == 0)[None, None]
  alone = jnp.where(first, forced[..., None], -1)
  choosing = listing & (forced < 0)
  return jnp.where(choosing[..., None], choices, alone).astype(jnp.int32)


def advance(
  state: State,
  tokens: jax.Array,
  candidate_sids: jax.Array,
  candidate_mask: jax.Array,
  fmt: answer.AnswerFormat,
) -> State:
  """Reads one more token of each rollout.

  Args:
    state: the state before it.
    tokens: int32 [Q, G], ids that `allowed` named, or free ones.
    candidate_sids: int32 [Q, K, L] codes.
    candidate_mask: bool [Q, K].
    fmt: the answer format.

  Returns:
    The state after it.
  """
  listing = state.place >= 0
  level = state.place % (fmt.levels + 1)
  code = tokens - fmt.sid_offset - level * fmt.codes
  match = _codes_at(candidate_sids, level) == code[..., None]
  reads = (listing & (level < fmt.levels))[..., None]
  live = jnp.where(reads, state.live & match, state.live)

  # Of candidates with one SID, the first that is left counts as named.
  named = live & (jnp.cumsum(live, axis=-1) == 1)
  ends = (listing & (level == fmt.levels - 1))[..., None]
  used = state.used | (ends & named)
  live = jnp.where(ends, candidate_mask[:, None] & ~used, live)

  begun = jnp.where(tokens == fmt.mid, 0, -1)
  place = jnp.where(listing, state.place + 1, begun)
  return State(place=place, used=used, live=live)
