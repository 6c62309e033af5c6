"""The acceptance report: what became of a teacher's answers, and their cost."""

from collections.abc import Sequence

import numpy as np

from gr2_jax.teacher import acceptance, sampling


def summarise(
  tally: sampling.Tally,
  traces: Sequence[sampling.Trace],
  places: Sequence[int],
  lengths: Sequence[int],
) -> dict:
  """Puts the report of one mode together.

  Args:
    tally: of all answers.
    traces: the accepted ones.
    places: pre-rank position of the true item in each list, from 0.
    lengths: tokens of each trace's explanation, in the student's vocabulary.

  Returns:
    `requested` lists, `accepted` ones and their share `acceptance`; by attempt
    `asked`, `by_attempt` (accepted) and `acceptance_by_attempt` (of the answers
    of that attempt); `by_position`, lists and traces by the place of the true
    item; `rejected` by reason, `near_duplicates` among them;
    `explanation_tokens`; `tokens` of a language model, in all and a trace.
  """
  place = np.asarray(places, int)
  kept = np.array([trace.row for trace in traces], int)
  width = int(place.max(initial=-1)) + 1
  count = lambda found: np.bincount(found, minlength=width).tolist()
  pairs = zip(tally.by_attempt, tally.asked, strict=True)
  per_trace = lambda tokens: _ratio(tokens, tally.accepted, 1)
  return {
    'requested': tally.requested,
    'accepted': tally.accepted,
    'acceptance': _ratio(tally.accepted, tally.requested),
    'asked': tally.asked,
    'by_attempt': tally.by_attempt,
    'acceptance_by_attempt': [_ratio(kept, asked) for kept, asked in pairs],
    'by_position': {'lists': count(place), 'traces': count(place[kept])},
    'rejected': tally.rejected,
    'near_duplicates': tally.rejected[acceptance.NEAR_DUPLICATE],
    'explanation_tokens': _lengths(lengths),
    'tokens': {
      'prompt': tally.prompt_tokens,
      'completion': tally.completion_tokens,
      'prompt_per_trace': per_trace(tally.prompt_tokens),
      'completion_per_trace': per_trace(tally.completion_tokens),
    },
  }


def _lengths(lengths: Sequence[int]) -> dict:
  if not len(lengths):
    return {'mean': 0.0, 'median': 0.0, 'max': 0}
  return {
    'mean': round(float(np.mean(lengths)), 1),
    'median': float(np.median(lengths)),
    'max': int(np.max(lengths)),
  }


def _ratio(part: int, whole: int, digits: int = 4) -> float:
  return round(part / whole, digits) if whole else 0.0
