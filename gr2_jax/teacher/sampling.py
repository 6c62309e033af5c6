"""Targeted and rejection sampling of traces (GR2, stage 2 [P]).

Targeted: the teacher is told the true item and asks itself why; every sound
answer is kept. Rejection: it is not told; an answer is kept only if its first
item is the true one. What is rejected is asked again, up to a number of
attempts.

All lists are asked for the first time, then those that were rejected for the
second time, and so on. What is made of the answers follows from the journal
alone, not from the order in which they came.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gr2_jax.teacher import acceptance as acceptance_lib
from gr2_jax.teacher import asker as asker_lib
from gr2_jax.teacher import base, explanations
from gr2_jax.teacher import journal as journal_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
  """One accepted answer.

  Attributes:
    row: index of its task.
    ranking: all candidates, the true one first.
    explanation: the teacher's words.
    attempt: which attempt was accepted, from 0.
  """

  row: int
  ranking: list[int]
  explanation: str
  attempt: int


@dataclasses.dataclass
class Tally:
  """The outcome of the answers: each is a trace or was rejected.

  Attributes:
    requested: lists asked about.
    asked: answers by attempt; they sum to `accepted` and all of `rejected`.
    by_attempt: traces by the attempt that gave them.
    rejected: rejected answers, by reason.
    prompt_tokens: that a language model read, for all answers.
    completion_tokens: that it wrote.
  """

  requested: int
  asked: list[int]
  by_attempt: list[int]
  rejected: dict[str, int]
  prompt_tokens: int = 0
  completion_tokens: int = 0

  @property
  def accepted(self) -> int:
    """Lists with a trace."""
    return sum(self.by_attempt)

  def add(self, attempt: int, answer: base.Answer, reason: str | None) -> None:
    """Counts an answer and why it was rejected (None: it is kept)."""
    self.asked[attempt] += 1
    self.prompt_tokens += answer.prompt_tokens
    self.completion_tokens += answer.completion_tokens
    if reason is None:
      self.by_attempt[attempt] += 1
    else:
      self.rejected[reason] += 1


def collect(
  teacher: base.Teacher,
  tasks: Sequence[asker_lib.Task],
  *,
  mode: str,
  attempts: int,
  acceptance: acceptance_lib.Acceptance,
  seed: int,
  journal: journal_lib.Journal,
  insist: bool = False,
) -> tuple[list[Trace], Tally]:
  """Asks a teacher until each list has a trace or the attempts are spent.

  Near duplicates are found at the end, among the traces in the order of their
  lists; they are rejected and not asked again.

  Args:
    teacher: whom to ask.
    tasks: N lists.
    mode: TARGETED or REJECTION.
    attempts: how often a list is asked at most, 1 or more.
    acceptance: what answers are measured by.
    seed: of all requests; see `asker.request_seed`.
    journal: the answers that are there, and where new ones go.
    insist: continue though the first answers are all rejected; see
      `asker.Trial`.

  Returns:
    (traces in the order of the tasks, tally).

  Raises:
    ValueError: an unknown mode, no attempt, a request that holds a hint, or a
      target that is not among its candidates.
    RuntimeError: the teacher left requests out, or answered one twice.
    asker.FirstAnswersError: the first answers are all rejected.
  """
  _check(tasks, mode, attempts)
  asker = asker_lib.Asker(
    teacher,
    tasks,
    mode=mode,
    acceptance=acceptance,
    seed=seed,
    journal=journal,
    insist=insist,
  )
  titles = [f'{mode}, attempt {n + 1} of {attempts}' for n in range(attempts)]
  traces, tally = _ask(asker, tasks, titles)
  return _drop_repeats(traces, tally, acceptance.near_duplicate), tally


def summarise(
  tally: Tally,
  traces: Sequence[Trace],
  places: Sequence[int],
  lengths: Sequence[int],
) -> dict:
  """Puts the acceptance report of one mode together.

  It counts the outcomes of a teacher's answers, and their cost.

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
    'near_duplicates': tally.rejected[acceptance_lib.NEAR_DUPLICATE],
    'explanation_tokens': _lengths(lengths),
    'tokens': {
      'prompt': tally.prompt_tokens,
      'completion': tally.completion_tokens,
      'prompt_per_trace': per_trace(tally.prompt_tokens),
      'completion_per_trace': per_trace(tally.completion_tokens),
    },
  }


def _check(tasks: Sequence[asker_lib.Task], mode: str, attempts: int) -> None:
  modes = (acceptance_lib.TARGETED, acceptance_lib.REJECTION)
  if mode not in modes:
    raise ValueError(f'traces.mode is {mode!r}; use one of {modes}.')
  if attempts < 1:
    raise ValueError(f'traces.attempts is {attempts}; give 1 or more.')
  for row, task in enumerate(tasks):
    if task.request.hint is not None:
      raise ValueError(f'Request {row} holds a hint; hints are given here.')
    if task.target not in task.request.candidates:
      raise ValueError(
        f'The target {task.target} of request {row} is not among its '
        f'candidates {list(task.request.candidates)}: only lists with a hit '
        'have traces.'
      )


def _ask(
  asker: asker_lib.Asker,
  tasks: Sequence[asker_lib.Task],
  titles: Sequence[str],
) -> tuple[list[Trace], Tally]:
  """Asks until each list has a trace, at most once for each of the titles."""
  none = dict.fromkeys(acceptance_lib.REASONS, 0)
  tally = Tally(len(tasks), [0] * len(titles), [0] * len(titles), none)
  found: dict[int, Trace] = {}
  pending = list(range(len(tasks)))
  for attempt, title in enumerate(titles):
    if not pending:
      break
    judged = asker.ask(pending, attempt, title)
    for row in pending:
      answer, reason = judged[row]
      tally.add(attempt, answer, reason)
      if reason is None:
        ranking = acceptance_lib.order(answer.ranking, tasks[row].target)
        found[row] = Trace(row, ranking, answer.explanation, attempt)
    pending = [row for row in pending if row not in found]
  return [found[row] for row in sorted(found)], tally


def _drop_repeats(
  traces: Sequence[Trace], tally: Tally, threshold: float
) -> list[Trace]:
  """Returns the traces that repeat no earlier one; `tally` has the others."""
  texts = [trace.explanation for trace in traces]
  near = explanations.near_duplicates(texts, threshold)
  for index in near:
    tally.by_attempt[traces[index].attempt] -= 1
    tally.rejected[acceptance_lib.NEAR_DUPLICATE] += 1
  return [t for index, t in enumerate(traces) if index not in near]


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
