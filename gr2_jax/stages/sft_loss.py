"""The loss of listwise SFT, one update for four kinds of rows.

    L = - sum over lists   log softmax(u)[true item], for each head
        - sum over explanations  lambda_r log P(words) + log P(true | words)
        - sum over lists without their target
                           sum_i q_i log softmax(u_alone)[i]
        - replay sum over text rows       log P(tokens)

divided by the number of lists of the first two kinds. Most lists miss their
target, so that no item is their label. Of these the likelihood learns what the
evidence would choose, q (knowledge distillation, Hinton et al., 2015), by the
head that has no evidence of its own. Behind words the choice is that of the
likelihood alone, among the candidates: words of a teacher give the true item
away, and the head would learn too much trust in them. Listwise likelihood in
place of the list's tokens is our choice; replay keeps what mid-training taught.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gr2_jax.lm import logps as logps_lib
from gr2_jax.lm import tables
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import heads, utilities
from gr2_jax.rl.rollout import PromptBatch
from gr2_jax.run import training
from gr2_jax.stages import listwise
from gr2_jax.text.answer import AnswerFormat

DIRECT, EXPLAINED, TEXT = 'direct', 'explained', 'text'
DISTILLED = 'distilled'


@flax.struct.dataclass
class Explained:
  """Lists with the words of an explanation.

  Attributes:
    lists: with explained prompts.
    words: int32 [Q, S], `open`, words and `top`, right-padded.
    written: bool [Q, S], their tokens.
  """

  lists: PromptBatch
  words: jax.Array
  written: jax.Array


@flax.struct.dataclass
class Distilled:
  """Lists without their target.

  Attributes:
    lists: with direct prompts; their grades are not read.
    share: float32 [Q, K], how likely the teacher chooses each candidate.
  """

  lists: PromptBatch
  share: jax.Array


def make(
  model: LMConfig,
  fmt: AnswerFormat,
  names: Sequence[str],
  lambda_r: float,
  replay: float,
) -> Callable[[Any, Any], tuple]:
  """Returns the loss as a function of parameters and batch.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    names: tasks of the text rows, in the order of their `task`.
    lambda_r: weight of a word.
    replay: weight of a text token.

  Returns:
    `({'lm', 'head'}, {DIRECT: PromptBatch, EXPLAINED: Explained, DISTILLED:
    Distilled, TEXT: packed rows}) -> (loss sum, number of lists, metrics)`; a
    batch may lack any of the four but not both of the first two.
  """
  text_loss = training.named_loss(model, list(names))

  def loss(params: Any, batch: Any) -> tuple:
    total, count, metrics = jnp.float32(0), jnp.float32(0), {}
    dropout = _keys(batch)
    if DIRECT in batch:
      lists = batch[DIRECT]
      logps = listwise.direct_logps(model, fmt, params['lm'], lists, dropout[0])
      total, count, metrics = _choice(params['head'], logps, lists)
    if EXPLAINED in batch:
      logps, nll, pairs = _words(
        model, fmt, params['lm'], batch[EXPLAINED], dropout[1]
      )
      lists = batch[EXPLAINED].lists
      number = jnp.float32(len(logps))
      chosen = utilities.listwise_nll(
        logps, lists.candidate_mask, lists.grades
      ).sum()
      total += chosen + lambda_r * nll
      count += number
      metrics |= pairs | {'nll_explained': (chosen, number)}
    if DISTILLED in batch:
      lists = batch[DISTILLED].lists
      logps = listwise.direct_logps(model, fmt, params['lm'], lists, dropout[2])
      nll = _imitated(params['head'], logps, batch[DISTILLED])
      total += nll
      metrics |= {'nll_distilled': (nll, jnp.float32(len(logps)))}
    if TEXT in batch:
      nll, _, pairs = text_loss(params['lm'], batch[TEXT])
      total += replay * nll
      metrics |= pairs
    return total, count, metrics

  return loss


def _keys(batch: Any) -> tuple:
  """Returns keys of what is dropped in the three kinds of lists, or None.

  They come from the text rows' seeds (`data.seeded`), which are there where
  training drops activations.
  """
  if 'seed' not in batch.get(TEXT, {}):
    return None, None, None
  return tuple(jax.random.split(jax.random.key(batch[TEXT]['seed'][0]), 3))


def _choice(
  head: Any, logps: jax.Array, lists: PromptBatch
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns the loss of both heads, the number of lists, and metrics."""
  total, metrics = jnp.float32(0), {}
  count = jnp.float32(len(logps))
  for name in heads.HEADS:
    values = heads.utilities(head, name, logps, lists.features)
    nll = utilities.listwise_nll(
      values, lists.candidate_mask, lists.grades
    ).sum()
    metrics[f'nll_direct_{name}'] = (nll, count)
    total += nll
  return total, count, metrics


def _imitated(head: Any, logps: jax.Array, distilled: Distilled) -> jax.Array:
  """Returns the cross-entropy of the teacher's choices."""
  lists = distilled.lists
  values = heads.utilities(head, heads.ALONE, logps, lists.features)
  return utilities.choice_nll(
    values, lists.candidate_mask, distilled.share
  ).sum()


def _words(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  batch: Explained,
  dropout: jax.Array | None,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns log P of the candidates [Q, K], NLL of all words, metrics."""
  lists = batch.lists
  states, logps = utilities.explained_logps(
    model,
    fmt,
    params,
    lists.prompt,
    lists.prompt_valid,
    words=batch.words[:, None],
    written=batch.written[:, None],
    sids=lists.candidate_sids,
    dropout=dropout,
  )
  table = tables.output(model, params)
  scores, _ = logps_lib.chunked_logps(
    lambda rows, hidden: tables.unembed(model, rows, hidden),
    table,
    states[:, 0],
    batch.words,
  )
  # `open` is forced.
  scored = batch.written.at[:, 0].set(False)
  nll = -jnp.sum(jnp.where(scored, scores, 0.0))
  count = scored.sum(dtype=jnp.float32)
  return logps[:, 0], nll, {'nll_words': (nll, count)}
