"""Utilities of candidates: the likelihood of a semantic ID, and evidence.

    u_i = tau * log P(SID_i | prompt) + w . f_i

P is the decoder's, over the codes of each level; f_i are the list's evidence
columns (`rank.evidence`). The prompt is read once, and each candidate is a
branch of L - 1 tokens behind it, so any number of candidates costs little.
The form is our choice.

Letters: Q prompts, P prompt tokens, K candidates, L levels, C codes a level, F
columns.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gr2_jax.lm import decoder, tables, tails
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import plackett_luce
from gr2_jax.text.answer import AnswerFormat


def sid_logps(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  prompt: jax.Array,
  valid: jax.Array,
  *,
  sids: jax.Array,
  dropout: jax.Array | None = None,
) -> jax.Array:
  """Scores the semantic ID of each candidate as what comes next.

  Args:
    model: shape of the LM.
    fmt: has the ids of the SID tokens.
    params: parameters of the LM.
    prompt: int [Q, P], right-padded; ends where a semantic ID begins.
    valid: bool [Q, P].
    sids: int [Q, K, L] codes.
    dropout: key of what is dropped; None drops nothing.

  Returns:
    float32 [Q, K], log P of the L codes, each among the codes of its level.
  """
  branches = fmt.sid_tokens(sids)[..., :-1]
  states = decoder.Decoder(model).apply(
    {'params': params},
    prompt,
    valid,
    branches,
    method='hidden_shared',
    rngs=_rngs(dropout),
  )
  return code_logps(model, fmt, params, states, sids)


def explained_logps(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  prompt: jax.Array,
  valid: jax.Array,
  *,
  words: jax.Array,
  written: jax.Array,
  sids: jax.Array,
  dropout: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Scores each candidate as the choice that an explanation ends with.

  A prompt is read once for its G explanations, an explanation once for its K
  branches.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    params: parameters of the LM.
    prompt: int [Q, P], right-padded.
    valid: bool [Q, P].
    words: int [Q, G, S], beginnings of answers up to `top`, right-padded.
    written: bool [Q, G, S], their tokens.
    sids: int [Q, K, L] codes.
    dropout: key of what is dropped; None drops nothing.

  Returns:
    (states [Q, G, S, D] that say what each word is; log P of each candidate's
    codes after the words, float32 [Q, G, K]).
  """
  queries, group, slots = words.shape
  count, levels = sids.shape[1:]
  codes = fmt.sid_tokens(sids)[..., :-1].reshape(queries, 1, -1)
  branches = jnp.broadcast_to(codes, (queries, group, codes.shape[-1]))
  begin = jnp.full((queries, group, 1), fmt.sid_begin, words.dtype)
  places, mask = _tree(written, count, levels - 1)
  states = decoder.Decoder(model).apply(
    {'params': params},
    prompt,
    valid,
    jnp.concatenate([words, begin, branches], axis=-1),
    places=places,
    mask=mask,
    method='hidden_shared',
    rngs=_rngs(dropout),
  )
  # What follows `begin` is the same for all candidates.
  first = states[:, :, slots + 1, None, None]
  rest = states[:, :, slots + 2 :]
  rest = rest.reshape(queries, group, count, levels - 1, -1)
  first = jnp.broadcast_to(first, (*rest.shape[:3], 1, rest.shape[-1]))
  ends = jnp.concatenate([first, rest], axis=3)
  ends = ends.reshape(queries * group, *ends.shape[2:])
  logps = code_logps(model, fmt, params, ends, jnp.repeat(sids, group, axis=0))
  return states[:, :, :slots], logps.reshape(queries, group, count)


def _rngs(dropout: jax.Array | None) -> dict[str, jax.Array] | None:
  return None if dropout is None else {'dropout': dropout}


def _tree(
  written: jax.Array, branches: int, length: int
) -> tuple[jax.Array, jax.Array]:
  """Lays branches behind a beginning of a semantic ID behind words.

  Args:
    written: bool [Q, G, S], the words; padding stands behind them.
    branches: K.
    length: tokens of a branch.

  Returns:
    Of the S + 1 + K * length tokens: how far behind the prompt each stands,
    int [Q, G, T], and which of the others it sees, bool [Q, G, T, T].
  """
  slots = written.shape[-1]
  total = slots + 1 + branches * length
  number = jnp.arange(total)
  branch = jnp.where(number <= slots, -1, (number - slots - 1) // length)
  depth = jnp.where(number <= slots, 0, (number - slots - 1) % length + 1)
  count = written.sum(-1)[..., None]
  after = number[None, None] >= slots
  places = jnp.where(after, count + depth[None, None], number[None, None])
  # Words see those up to them, a branch the words and itself.
  causal = number[:, None] >= number[None, :]
  kin = (branch[None, :] == -1) | (branch[:, None] == branch[None, :])
  real = jnp.pad(
    written, ((0, 0), (0, 0), (0, total - slots)), constant_values=True
  )
  among_words = (number < slots)[None, None, :, None]
  seen = real[..., None, :] | among_words
  return places, (causal & kin)[None, None] & seen


def code_logps(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  states: jax.Array,
  sids: jax.Array,
) -> jax.Array:
  """Sums the log-probabilities of codes over the levels.

  Args:
    model: shape of the LM.
    fmt: has the ids of the SID tokens.
    params: parameters of the LM.
    states: [Q, K or 1, L, D]; state l says what the code of level l is. Those
      of level 0 are the same for all candidates: the first one's are read.
    sids: int [Q, K, L] codes.

  Returns:
    float32 [Q, K].
  """
  table = tables.output(model, params)
  total = 0.0
  for level in range(fmt.levels):
    begin = fmt.level_start(level)
    rows = jax.lax.slice_in_dim(table, begin, begin + fmt.codes)
    own = states[:, :1, 0] if level == 0 else states[:, :, level]
    logps = jax.nn.log_softmax(tables.project(model, rows, own), axis=-1)
    shape = (*sids.shape[:2], fmt.codes)
    chosen = jnp.take_along_axis(
      jnp.broadcast_to(logps, shape), sids[..., level, None], axis=-1
    )
    total += chosen[..., 0]
  return total


def listwise_nll(
  values: jax.Array, mask: jax.Array, grades: jax.Array
) -> jax.Array:
  """Returns the negative log-likelihood that a true item is chosen first.

  Args:
    values: float [..., K], utilities.
    mask: bool [..., K], False for the padding of short lists.
    grades: int [..., K], what each candidate is worth: one-hot, or the labels
      of a slate, which share the choice in proportion.

  Returns:
    float32 [...], nats; 0 where no candidate is worth anything.
  """
  share = jnp.where(mask, grades, 0).astype(jnp.float32)
  share /= jnp.maximum(share.sum(-1, keepdims=True), 1.0)
  return choice_nll(values, mask, share)


def choice_nll(
  values: jax.Array, mask: jax.Array, share: jax.Array
) -> jax.Array:
  """Returns the cross-entropy of who is chosen first.

  Args:
    values: float [..., K], utilities.
    mask: bool [..., K], False for the padding of short lists.
    share: float32 [..., K], how likely each candidate is to be chosen; 0 in
      padding.

  Returns:
    float32 [...], nats.
  """
  logps = jax.nn.log_softmax(jnp.where(mask, values, plackett_luce.OUT), -1)
  return -jnp.sum(share * logps, axis=-1)


@flax.struct.dataclass
class Read:
  """Prompts that were read once, for any number of candidates.

  Attributes:
    state: [Q, 1, D], what follows each prompt.
    kv: keys and values of the prompts.
    valid: bool [Q, P], their tokens.
  """

  state: jax.Array
  kv: Any
  valid: jax.Array


@functools.partial(jax.jit, static_argnames='model')
def read(
  model: LMConfig, params: Any, prompt: jax.Array, valid: jax.Array
) -> Read:
  """Reads prompts; see `sid_logps` for the arguments."""
  state, kv = decoder.Decoder(model).apply(
    {'params': params}, prompt, valid, method='prefill'
  )
  return Read(state, kv, valid)


@functools.partial(jax.jit, static_argnames=('model', 'fmt'))
def logps_after(
  model: LMConfig, fmt: AnswerFormat, params: Any, given: Read, sids: jax.Array
) -> jax.Array:
  """Scores candidates behind prompts that were read: `sid_logps` in two steps.

  Args:
    model: shape of the LM.
    fmt: has the ids of the SID tokens.
    params: parameters of the LM.
    given: from `read`.
    sids: int [Q, K, L] codes.

  Returns:
    float32 [Q, K].
  """
  queries, count, levels = sids.shape
  branches = fmt.sid_tokens(sids)[..., :-1]
  length = given.valid.sum(-1)[:, None, None]
  places = length + jnp.arange(levels - 1)[None, None]
  rest, _ = decoder.Decoder(model).apply(
    {'params': params},
    branches,
    jnp.broadcast_to(places, branches.shape),
    given.kv,
    given.valid,
    tail_kv=tails.empty(model, queries, count, levels - 1),
    index=0,
    method='extend',
  )
  shape = (queries, count, 1, rest.shape[-1])
  first = jnp.broadcast_to(given.state[:, None], shape)
  states = jnp.concatenate([first, rest], axis=2)
  return code_logps(model, fmt, params, states, sids)
