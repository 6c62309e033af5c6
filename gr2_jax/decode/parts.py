"""Which part of the vocabulary the places of an answer can hold.

Behind the most words a constrained answer continues with `top` and the list:
there logits of the SID tokens and the delimiters are enough, a hundredth of a
pretrained vocabulary. Sampler and trainer share the split, so that both
compute what they compare in one way (our choice). So the trainer needs the
`explanation_tokens` that its answers were sampled with. No object samples and
scores: free text is never scored, and words before a ranking are scored from
the pass that scores the candidates (`rl.rankings.score`).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.decode import constrain as constraints
from gr2_jax.lm import tables
from gr2_jax.lm.config import LMConfig
from gr2_jax.text import answer


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of the vocabulary.

  Attributes:
    model: shape of the LM.
    fmt: the answer format.
    constrain: whether answers are constrained.
    listing: whether it is the list's part alone, else it is the whole.
  """

  model: LMConfig
  fmt: answer.AnswerFormat
  constrain: bool
  listing: bool = False

  def rows(self, table: jax.Array) -> jax.Array:
    """Takes the part's rows [N, D] from the output table [V, D]."""
    return table[list_ids(self.fmt)] if self.listing else table

  def logits(self, rows: jax.Array, hidden: jax.Array) -> jax.Array:
    """Projects states [..., D] to the part's logits, float32 [..., N]."""
    if self.listing:
      return tables.project(self.model, rows, hidden)
    return tables.unembed(self.model, rows, hidden)

  @property
  def banned(self) -> np.ndarray | None:
    """Which of its ids no free place may hold, bool [N]; None: all may be."""
    if self.listing or not self.constrain:
      return None
    return constraints.banned(self.fmt, self.model.vocab_size)

  def inside(self, ids: jax.Array) -> jax.Array:
    """Numbers ids within the part; those below 0 stay.

    Args:
      ids: int [...]; `pad` becomes any number, and none else may be outside.

    Returns:
      int32 [...].
    """
    if not self.listing:
      return ids
    numbers = jnp.asarray(_numbers(self.fmt, self.model.vocab_size))
    return jnp.where(ids < 0, ids, numbers[jnp.maximum(ids, 0)])

  def outside(self, numbers: jax.Array) -> jax.Array:
    """Undoes `inside` of numbers from 0 on."""
    if not self.listing:
      return numbers
    return jnp.asarray(list_ids(self.fmt))[numbers]


def served(
  model: LMConfig, fmt: answer.AnswerFormat, constrain: bool
) -> tuple[Part, ...]:
  """Returns the whole vocabulary, and where answers are constrained the list's.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    constrain: whether answers are constrained.
  """
  whole = Part(model, fmt, constrain)
  if not constrain:
    return (whole,)
  return whole, dataclasses.replace(whole, listing=True)


def with_rows(
  model: LMConfig, fmt: answer.AnswerFormat, constrain: bool, params: Any
) -> tuple[tuple[Part, jax.Array], ...]:
  """Returns what `served` does, each part with its rows of the output table."""
  table = tables.output(model, params)
  return tuple((x, x.rows(table)) for x in served(model, fmt, constrain))


def begin(explanation_tokens: int) -> int:
  """Returns the first place of a constrained answer that `Part.listing` serves.

  Args:
    explanation_tokens: the budget of the words; `open` stands before them.
  """
  return explanation_tokens + 1


@functools.lru_cache(maxsize=8)
def list_ids(fmt: answer.AnswerFormat) -> np.ndarray:
  """Returns the ids of the list and what is around it, int32 [N], distinct."""
  sids = fmt.sid_offset + np.arange(fmt.levels * fmt.codes, dtype=np.int32)
  others = (fmt.top, fmt.sid_begin, fmt.sid_end, fmt.mid, fmt.sep, fmt.close)
  others = np.array([*others, fmt.eos], np.int32)
  return np.concatenate([sids, others])


@functools.lru_cache(maxsize=8)
def _numbers(fmt: answer.AnswerFormat, vocab_size: int) -> np.ndarray:
  """Returns the place of each id in `list_ids`, 0 for the others: int32 [V]."""
  numbers = np.zeros(vocab_size, np.int32)
  ids = list_ids(fmt)
  numbers[ids] = np.arange(len(ids))
  return numbers
