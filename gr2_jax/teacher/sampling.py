"""Targeted and rejection sampling of traces (GR2, stage 2 [P]).

Targeted: the teacher is told the true item and asks itself why; every usable
answer is kept. Rejection: it is not told; an answer is kept only if its first
item is the true one, else the list is asked again, up to a number of attempts.
Practice [our choice]: lists without their target, where nothing can be checked
but the form; a decoder trained from scratch learns on them how answers go.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from gr2_jax.teacher import base

TARGETED, REJECTION = 'targeted', 'rejection'
PRACTICE = 'practice'

UNKNOWN_ITEM = 'unknown_item'
REPEATED_ITEM = 'repeated_item'
EMPTY = 'empty_explanation'
TOO_LONG = 'too_long'
WRONG_TOP = 'wrong_top'
REASONS = (UNKNOWN_ITEM, REPEATED_ITEM, EMPTY, TOO_LONG, WRONG_TOP)


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
  """One accepted answer.

  Attributes:
    row: index of its request.
    ranking: all candidates, the true one first; in practice none is known.
    explanation: the teacher's words.
    attempt: which attempt was accepted, from 0.
  """

  row: int
  ranking: list[int]
  explanation: str
  attempt: int


@dataclasses.dataclass
class Tally:
  """What became of the answers.

  Attributes:
    requested: lists asked about.
    accepted: lists with a trace.
    by_attempt: traces by the attempt that gave them.
    rejected: answers turned down, by reason.
  """

  requested: int
  accepted: int
  by_attempt: list[int]
  rejected: dict[str, int]

  def plus(self, other: 'Tally') -> 'Tally':
    """Returns the sum with another tally of as many attempts."""
    pairs = zip(self.by_attempt, other.by_attempt, strict=True)
    return Tally(
      self.requested + other.requested,
      self.accepted + other.accepted,
      [a + b for a, b in pairs],
      {r: self.rejected[r] + other.rejected[r] for r in REASONS},
    )


def empty_tally(attempts: int) -> Tally:
  """Returns a tally of nothing."""
  return Tally(0, 0, [0] * attempts, dict.fromkeys(REASONS, 0))


def collect(
  teacher: base.Teacher,
  requests: Sequence[base.Request],
  targets: Sequence[int],
  mode: str,
  attempts: int,
  fits: Callable[[str], bool],
  seed: Sequence[int],
) -> tuple[list[Trace], Tally]:
  """Asks a teacher until each list has a trace or the attempts are spent.

  Args:
    teacher: whom to ask.
    requests: N lists without hints.
    targets: the true item of each, which must be among its candidates.
    mode: TARGETED or REJECTION.
    attempts: how often a list is asked at most, 1 or more.
    fits: whether an explanation is within its budget.
    seed: numbers that make the noise; attempt a draws from `[*seed, a]`.

  Returns:
    (traces in the order of the requests, tally).

  Raises:
    ValueError: an unknown mode, no attempt, a request that holds a hint, or a
      target that is not among its candidates.
  """
  _check(requests, targets, mode, attempts)
  tally = empty_tally(attempts)
  tally.requested = len(requests)
  accepted: dict[int, Trace] = {}
  pending = list(range(len(requests)))
  for attempt in range(attempts):
    if not pending:
      break
    asked = [requests[row] for row in pending]
    if mode == TARGETED:
      asked = [
        dataclasses.replace(request, hint=int(targets[row]))
        for request, row in zip(asked, pending, strict=True)
      ]
    rng = np.random.default_rng([*seed, attempt])
    answers = teacher.answer(asked, attempt, rng)
    for row, answer in zip(pending, answers, strict=True):
      candidates = [int(i) for i in requests[row].candidates]
      target = int(targets[row])
      reason = judge(answer, candidates, target, mode, fits)
      if reason is None:
        ranking = complete(answer.ranking, candidates, target)
        text = answer.explanation
        accepted[row] = Trace(row, ranking, text, attempt)
      else:
        tally.rejected[reason] += 1
    pending = [row for row in pending if row not in accepted]
  counts = collections.Counter(trace.attempt for trace in accepted.values())
  tally.by_attempt = [counts[attempt] for attempt in range(attempts)]
  tally.accepted = len(accepted)
  return [accepted[row] for row in sorted(accepted)], tally


def practise(
  teacher: base.Teacher,
  requests: Sequence[base.Request],
  fits: Callable[[str], bool],
  seed: Sequence[int],
) -> tuple[list[Trace], Tally]:
  """Asks a teacher once about lists that do not hold their target.

  Args:
    teacher: whom to ask.
    requests: N lists without hints.
    fits: whether an explanation is within its budget.
    seed: numbers that make the draws.

  Returns:
    (traces in the order of the requests, tally of one attempt).
  """
  tally = empty_tally(1)
  tally.requested = len(requests)
  traces = []
  answers = teacher.answer(requests, 0, np.random.default_rng(seed))
  for row, (request, answer) in enumerate(zip(requests, answers, strict=True)):
    candidates = [int(i) for i in request.candidates]
    reason = judge(answer, candidates, None, PRACTICE, fits)
    if reason is None:
      ranking = complete(answer.ranking, candidates)
      traces.append(Trace(row, ranking, answer.explanation, 0))
    else:
      tally.rejected[reason] += 1
  tally.accepted = len(traces)
  tally.by_attempt = [len(traces)]
  return traces, tally


def judge(
  answer: base.Answer,
  candidates: Sequence[int],
  target: int | None,
  mode: str,
  fits: Callable[[str], bool],
) -> str | None:
  """Returns why an answer is turned down, or None where it is kept.

  A ranking may miss items (`complete` adds them), but not name others or one
  twice. In rejection mode its first item must be the true one [P].
  """
  if set(answer.ranking) - set(candidates):
    return UNKNOWN_ITEM
  if len(set(answer.ranking)) < len(answer.ranking):
    return REPEATED_ITEM
  if not answer.explanation.strip():
    return EMPTY
  if not fits(answer.explanation):
    return TOO_LONG
  if mode == REJECTION and answer.ranking[:1] != [target]:
    return WRONG_TOP
  return None


def complete(
  ranking: Sequence[int], candidates: Sequence[int], target: int | None = None
) -> list[int]:
  """Returns the list that is trained on [G].

  The true item first (where it is known), then the teacher's order, then what
  the teacher left out in pre-rank order.
  """
  first = [] if target is None else [target]
  return list(dict.fromkeys([*first, *ranking, *candidates]))


def _check(
  requests: Sequence[base.Request],
  targets: Sequence[int],
  mode: str,
  attempts: int,
) -> None:
  if mode not in (TARGETED, REJECTION):
    raise ValueError(
      f'traces.mode is {mode!r}; use {TARGETED!r} or {REJECTION!r}.'
    )
  if attempts < 1:
    raise ValueError(f'traces.attempts is {attempts}; give 1 or more.')
  for row, (request, target) in enumerate(zip(requests, targets, strict=True)):
    if request.hint is not None:
      raise ValueError(f'Request {row} holds a hint; hints are given here.')
    if target not in request.candidates:
      raise ValueError(
        f'The target {target} of request {row} is not among its candidates '
        f'{list(request.candidates)}: only lists with a hit have traces.'
      )
