"""One batch of lists answered greedily, in each of the ways a ranker has."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax.decode import ending, sampler
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import heads, plackett_luce, utilities
from gr2_jax.rl import parse
from gr2_jax.rl.rollout import PromptBatch
from gr2_jax.stages import listwise
from gr2_jax.text import lengths
from gr2_jax.text.answer import AnswerFormat


@functools.partial(
  jax.jit,
  static_argnames=(
    'model',
    'fmt',
    'max_new_tokens',
    'explanation_tokens',
    'constrained',
  ),
)
def write_list(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: PromptBatch,
  *,
  max_new_tokens: int,
  explanation_tokens: int,
  constrained: bool,
) -> dict[str, jax.Array]:
  """Writes answers token by token, the paper's way.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    params: of the LM.
    lists: with explained prompts; an empty prompt fills the batch up.
    max_new_tokens: the longest answer.
    explanation_tokens: budget of the words where `constrained` holds.
    constrained: whether the list can only become a permutation.

  Returns:
    `places` int32 [Q, K], where each candidate stands; `valid` bool [Q];
    `tokens` int32 [Q, S] and `mask` bool [Q, S].
  """
  samples = _sample(
    model,
    fmt,
    params,
    lists,
    max_new_tokens=max_new_tokens,
    explanation_tokens=explanation_tokens,
    constrained=constrained,
    words_only=False,
  )
  return _read(fmt, lists, samples.tokens[:, 0], samples.mask[:, 0])


@functools.partial(
  jax.jit, static_argnames=('model', 'fmt', 'explanation_tokens')
)
def explain(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: PromptBatch,
  explanation_tokens: int,
) -> dict[str, jax.Array]:
  """Writes explanations, and ranks by the utilities behind them.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    params: {'lm', 'head'}.
    lists: with explained prompts and the direct ones beside them; an empty
      prompt fills the batch up.
    explanation_tokens: budget of the words.

  Returns:
    What `write_list` does, with the tokens of whole answers, and `utilities`,
    `alone` float32 [Q, K], of the two heads.
  """
  samples = _sample(
    model,
    fmt,
    params['lm'],
    lists,
    max_new_tokens=lengths.words(explanation_tokens),
    explanation_tokens=explanation_tokens,
    constrained=True,
    words_only=True,
  )
  _, behind = utilities.explained_logps(
    model,
    fmt,
    params['lm'],
    lists.prompt,
    lists.prompt_valid,
    words=samples.tokens,
    written=samples.mask,
    sids=lists.candidate_sids,
  )
  logps = utilities.sid_logps(
    model,
    fmt,
    params['lm'],
    lists.history,
    lists.history_valid,
    sids=lists.candidate_sids,
  )
  found = _by_head(params['head'], logps, lists, behind[:, 0])
  order = plackett_luce.sort(found['utilities'], lists.candidate_mask)
  tokens, mask = ending.complete(
    fmt,
    samples.tokens[:, 0],
    samples.mask[:, 0],
    candidate_sids=lists.candidate_sids,
    candidate_mask=lists.candidate_mask,
    order=order,
  )
  return {**_read(fmt, lists, tokens, mask), **found}


@functools.partial(jax.jit, static_argnames=('model', 'fmt'))
def rank(
  model: LMConfig, fmt: AnswerFormat, params: Any, lists: PromptBatch
) -> dict[str, jax.Array]:
  """Ranks by utilities without explanation: one pass, no decoding.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    params: {'lm', 'head'}.
    lists: with direct prompts.

  Returns:
    `places` int32 [Q, K]; `utilities` and `alone` float32 [Q, K].
  """
  found = listwise.direct_utilities(model, fmt, params, lists)
  order = plackett_luce.sort(found[heads.FULL], lists.candidate_mask)
  return {
    'places': jnp.argsort(order, axis=-1),
    'utilities': found[heads.FULL],
    'alone': found[heads.ALONE],
  }


def _by_head(
  head: Any, logps: jax.Array, lists: PromptBatch, behind: jax.Array
) -> dict[str, jax.Array]:
  use = functools.partial(
    heads.utilities,
    head,
    logps=logps,
    features=lists.features,
    behind=behind,
  )
  return {'utilities': use(heads.FULL), 'alone': use(heads.ALONE)}


def _read(
  fmt: AnswerFormat, lists: PromptBatch, tokens: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  places, valid = parse.parse_ranking(
    tokens, lists.candidate_sids, fmt, mask, lists.candidate_mask
  )
  return {'places': places, 'valid': valid, 'tokens': tokens, 'mask': mask}


def _sample(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: PromptBatch,
  *,
  max_new_tokens: int,
  explanation_tokens: int,
  constrained: bool,
  words_only: bool,
) -> sampler.Samples:
  return sampler.sample(
    model,
    params,
    lists.prompt,
    lists.prompt_valid,
    jax.random.key(0),  # Unread: decoding is greedy.
    num_samples=1,
    max_new_tokens=max_new_tokens,
    temperature=jnp.float32(0.0),
    fmt=fmt,
    items=lists.items,
    constrain=constrained,
    explanation_tokens=explanation_tokens,
    words_only=words_only,
  )
