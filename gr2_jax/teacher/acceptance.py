"""Which answers become traces: one strict rule for every teacher.

A trace teaches by its words and by its list, so both must be sound: the list a
permutation of the candidates, and words that cite what was shown and what was
chosen. The words of the rules need not cite the first item: the end of an
answer names it. No missing item is filled in, since every teacher sees all
candidates. What is checked is GR2's [P] where it says so, else our choice.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from gr2_jax.teacher import base
from gr2_jax.text import semantic_ids

TARGETED, REJECTION = 'targeted', 'rejection'

# What a reader of texts finds (`Answer.problem`).
NOT_JSON = 'not_json'
WRONG_KEYS = 'wrong_keys'
CUT_OFF = 'cut_off'
REFUSED = 'refused'
ONLY_THOUGHT = 'only_thought'
UNREADABLE = (NOT_JSON, WRONG_KEYS, CUT_OFF, REFUSED, ONLY_THOUGHT)
# What is found here.
UNKNOWN_ITEM = 'unknown_item'
REPEATED_ITEM = 'repeated_item'
MISSING_ITEM = 'missing_item'
EMPTY = 'empty_explanation'
TOO_LONG = 'too_long'
NO_HISTORY = 'cites_no_history'
NOT_TOP = 'cites_not_top'
WRONG_TOP = 'wrong_top'
NEAR_DUPLICATE = 'near_duplicate'
REASONS = (
  *UNREADABLE,
  UNKNOWN_ITEM,
  REPEATED_ITEM,
  MISSING_ITEM,
  EMPTY,
  TOO_LONG,
  NO_HISTORY,
  NOT_TOP,
  WRONG_TOP,
  NEAR_DUPLICATE,
)
_THINKING = (
  'serve the model with thinking off, or with a reasoning parser, which takes '
  'thoughts out of answers'
)
_STRICTER = (
  "ask for JSON by schema (endpoint.structured='schema'), or take a larger "
  'model'
)
# What is likely to help, by the reason that answers are rejected for.
REMEDIES = {
  NOT_JSON: f'they are no JSON: {_THINKING}; or {_STRICTER}',
  WRONG_KEYS: f'they are JSON of another form: {_STRICTER}',
  CUT_OFF: (
    'they reach their limit: raise traces.sampling.max_tokens, or '
    'serve the model with thinking off'
  ),
  REFUSED: (
    'the server wrote nothing, or declined: check its log and its filters, '
    'or take another model'
  ),
  ONLY_THOUGHT: (
    'the server puts all that the model writes into reasoning_content: serve '
    'it with thinking off or without the reasoning parser, or raise '
    'traces.sampling.max_tokens'
  ),
  UNKNOWN_ITEM: f'they name items that were not asked: {_STRICTER}',
  REPEATED_ITEM: f'they name an item twice: {_STRICTER}',
  MISSING_ITEM: f'they leave candidates out: {_STRICTER}',
  EMPTY: 'they explain nothing: take a larger model',
  TOO_LONG: (
    'their explanations are too long: raise rl.explanation_tokens, and '
    'traces.explanation_tokens with it, or take a larger model'
  ),
  NO_HISTORY: (
    'their explanations cite nothing of the history: take a larger model'
  ),
  NOT_TOP: (
    'their explanations do not cite the item that is first: take a larger model'
  ),
  WRONG_TOP: (
    'the true item is not first: raise traces.attempts, or use '
    "traces.mode='targeted'"
  ),
  NEAR_DUPLICATE: (
    'their explanations repeat each other: raise traces.near_duplicate, or '
    'sample more boldly (traces.sampling)'
  ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Acceptance:
  """What answers are measured by.

  Attributes:
    fits: whether an explanation is within its budget.
    citations: finds what an explanation cites.
    near_duplicate: similarity from which on an explanation repeats an earlier
      one (`explanations.near_duplicates`); 0: none does.
    names_top: whether the words themselves must cite the item that is ranked
      first. Every answer names it behind them; a language model is asked for a
      choice in its own words, the rules leave it to the answer.
  """

  fits: Callable[[str], bool]
  citations: semantic_ids.Citations
  near_duplicate: float = 0.0
  names_top: bool = True


def rejection_reason(
  answer: base.Answer,
  request: base.Request,
  target: int,
  mode: str,
  acceptance: Acceptance,
) -> str | None:
  """Returns why an answer is rejected, or None where it is kept.

  In this order: the text could not be read; the ranking is no permutation of
  the candidates; the explanation is empty or too long; it cites none of the
  history that was shown (where there is one), or (with `names_top`) not the
  item that its trace will have on top; in rejection mode, another item than the
  true one is first [P]. In targeted mode the trace has the hint on top wherever
  the answer has it, so the hint is what must be cited.

  Args:
    answer: a teacher's.
    request: what it was asked.
    target: the true item.
    mode: TARGETED or REJECTION.
    acceptance: what to measure by.

  Returns:
    One of `REASONS` (never NEAR_DUPLICATE, which no single answer is), or None.
  """
  if answer.problem is not None:
    return answer.problem
  candidates = {int(item) for item in request.candidates}
  if set(answer.ranking) - candidates:
    return UNKNOWN_ITEM
  if len(set(answer.ranking)) < len(answer.ranking):
    return REPEATED_ITEM
  if len(answer.ranking) < len(candidates):
    return MISSING_ITEM
  if not answer.explanation.strip():
    return EMPTY
  if not _is_unicode(answer.explanation):
    return NOT_JSON
  if not acceptance.fits(answer.explanation):
    return TOO_LONG
  cited = set(acceptance.citations.find(answer.explanation))
  if len(request.history) and cited.isdisjoint(map(int, request.history)):
    return NO_HISTORY
  top = target if mode == TARGETED else answer.ranking[0]
  if acceptance.names_top and top not in cited:
    return NOT_TOP
  if mode == REJECTION and top != target:
    return WRONG_TOP
  return None


def order(ranking: Sequence[int], target: int) -> list[int]:
  """Returns the list that is trained on [G].

  The true item first, then the teacher's order.
  """
  return list(dict.fromkeys([target, *ranking]))


def advice(rejected: Mapping[str, int]) -> str:
  """Explains why answers were rejected, and what is likely to help.

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
  return f'rejected: {listed}; ' + '; '.join(REMEDIES[k] for k in told)


def _is_unicode(text: str) -> bool:
  """Returns whether a text can be written: JSON can spell half a character."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True
