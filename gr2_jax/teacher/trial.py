"""The first answers of a teacher on trial, before more are paid for.

Where all of them are turned down in one way, so will the others be: the run
stops, shows one and says what is likely to help.
"""

import collections
import pathlib
from collections.abc import Mapping

from gr2_jax.teacher import acceptance
from gr2_jax.teacher import journal as journal_lib

# Answers on trial [our choice].
FIRST = 32
_SHOWN = 300
_THINKING = (
  'serve the model with thinking off, or with a reasoning parser, which takes '
  'thoughts out of answers'
)
_STRICTER = (
  "ask for JSON by schema (endpoint.structured='schema'), or take a larger "
  'model'
)
# What is likely to help, by the reason that answers are turned down for.
REMEDIES = {
  acceptance.NOT_JSON: f'they are no JSON: {_THINKING}; or {_STRICTER}',
  acceptance.WRONG_KEYS: f'they are JSON of another form: {_STRICTER}',
  acceptance.CUT_OFF: (
    'they reach their limit: raise traces.sampling.max_tokens, or '
    'serve the model with thinking off'
  ),
  acceptance.REFUSED: (
    'the server wrote nothing, or declined: check its log and its filters, '
    'or take another model'
  ),
  acceptance.ONLY_THOUGHT: (
    'the server puts all that the model writes into reasoning_content: serve '
    'it with thinking off or without the reasoning parser, or raise '
    'traces.sampling.max_tokens'
  ),
  acceptance.UNKNOWN_ITEM: f'they name items that were not asked: {_STRICTER}',
  acceptance.REPEATED_ITEM: f'they name an item twice: {_STRICTER}',
  acceptance.MISSING_ITEM: f'they leave candidates out: {_STRICTER}',
  acceptance.EMPTY: 'they explain nothing: take a larger model',
  acceptance.TOO_LONG: (
    'their explanations are too long: raise rl.explanation_tokens, and '
    'traces.explanation_tokens with it, or take a larger model'
  ),
  acceptance.NO_HISTORY: (
    'their explanations cite nothing of the history: take a larger model'
  ),
  acceptance.NOT_TOP: (
    'their explanations do not cite the item that is first: take a larger model'
  ),
  acceptance.WRONG_TOP: (
    'the true item is not first: raise traces.attempts, or use '
    "traces.mode='targeted'"
  ),
  acceptance.NEAR_DUPLICATE: (
    'their explanations repeat each other: raise traces.near_duplicate, or '
    'sample more boldly (traces.sampling)'
  ),
}


class VainError(RuntimeError):
  """The first answers were turned down in one way; they are kept."""


def advice(rejected: Mapping[str, int]) -> str:
  """Explains why answers were turned down, and what is likely to help.

  Args:
    rejected: answers by reason, at least one of them.

  Returns:
    The counts, and the remedies of the most frequent reason and of all others
    with a third of the answers or more.
  """
  counts = collections.Counter({k: n for k, n in rejected.items() if n})
  (first, _), *others = counts.most_common()
  told = [first, *(k for k, n in others if 3 * n >= counts.total())]
  listed = ', '.join(f'{name} {n}' for name, n in counts.most_common())
  return f'turned down: {listed}; ' + '; '.join(REMEDIES[k] for k in told)


def message(teacher: str, said: str, text: str, kept: pathlib.Path) -> str:
  """Writes the message of a `VainError`.

  Args:
    teacher: who answered.
    said: what is wrong, and what is likely to help.
    text: one of the answers.
    kept: where they are.
  """
  shown = repr(text[:_SHOWN]) + ' ...' * (len(text) > _SHOWN)
  begins = f'One begins: {shown}.' if text else 'They have no text.'
  return (
    f'The first {FIRST} answers of {teacher!r} are all rejected ({said}). '
    f'{begins} All answers are kept in {kept}, and no further ones were asked '
    'for. Start the same command again when that is fixed, or with --insist to '
    'continue as it is.'
  )


class Trial:
  """Counts new answers until `FIRST` are there, and judges them once.

  It is passed where one is kept, or is sound but for the item on top, which
  rejection sampling expects; where they are turned down for different reasons,
  unless all say that they cannot be read; or where an earlier run of the same
  teacher has an answer that is kept.
  """

  def __init__(
    self, teacher: str, journal: journal_lib.Journal, insist: bool = False
  ):
    """Begins.

    Args:
      teacher: its name, for the error.
      journal: where the answers are.
      insist: it is passed unseen.
    """
    self._teacher, self._journal, self._passed = teacher, journal, insist
    self._counts: collections.Counter = collections.Counter()
    self._places: dict[str, tuple[journal_lib.Key, int]] = {}

  @property
  def left(self) -> int:
    """How many answers are to come before the judgement."""
    return 0 if self._passed else FIRST - self._counts.total()

  def passes(self, reason: str | None) -> None:
    """Passes it where an answer of an earlier run was kept."""
    self._passed = self._passed or reason is None

  def add(self, key: journal_lib.Key, attempt: int, reason: str | None) -> None:
    """Counts a new answer.

    Args:
      key: of its list.
      attempt: which one, from 0.
      reason: why it was turned down; None: it is kept.

    Raises:
      VainError: it is the last one on trial, and all are rejected.
    """
    if self._passed:
      return
    if reason in (None, acceptance.WRONG_TOP):
      self._passed = True
      return
    self._counts[reason] += 1
    self._places.setdefault(reason, (key, attempt))
    if self._counts.total() < FIRST:
      return
    unreadable = set(self._counts) <= set(acceptance.UNREADABLE)
    self._passed = len(self._counts) > 1 and not unreadable
    if not self._passed:
      raise VainError(self._message())

  def _message(self) -> str:
    (reason, _), *_ = self._counts.most_common(1)
    text = self._journal.text(*self._places[reason])
    return message(
      self._teacher, advice(self._counts), text, self._journal.path
    )
