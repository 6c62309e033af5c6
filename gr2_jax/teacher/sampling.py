"""Targeted and rejection sampling of traces (GR2, stage 2 [P]).

Targeted: the teacher is told the true item and asks itself why; every sound
answer is kept. Rejection: it is not told; an answer is kept only if its first
item is the true one. What is turned down is asked again, up to a number of
attempts.

All lists are asked for the first time, then those that were turned down for the
second time, and so on. What is made of the answers follows from the journal
alone, not from the order in which they came.
"""

import dataclasses
from collections.abc import Sequence

from gr2_jax.teacher import acceptance as acceptance_lib
from gr2_jax.teacher import asking, base, explanations
from gr2_jax.teacher import journal as journal_lib
from gr2_jax.teacher.acceptance import REJECTION, TARGETED

REASONS = acceptance_lib.REASONS


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
  """What became of the answers: each is a trace or was turned down.

  Attributes:
    requested: lists asked about.
    asked: answers by attempt; they sum to `accepted` and all of `rejected`.
    by_attempt: traces by the attempt that gave them.
    rejected: answers turned down, by reason.
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
    """Counts an answer and why it was turned down (None: it is kept)."""
    self.asked[attempt] += 1
    self.prompt_tokens += answer.prompt_tokens
    self.completion_tokens += answer.completion_tokens
    if reason is None:
      self.by_attempt[attempt] += 1
    else:
      self.rejected[reason] += 1


def collect(
  teacher: base.Teacher,
  tasks: Sequence[asking.Task],
  mode: str,
  attempts: int,
  acceptance: acceptance_lib.Acceptance,
  seed: int,
  journal: journal_lib.Journal,
  insist: bool = False,
) -> tuple[list[Trace], Tally]:
  """Asks a teacher until each list has a trace or the attempts are spent.

  Near duplicates are found at the end, among the traces in the order of their
  lists; they are turned down and not asked again.

  Args:
    teacher: whom to ask.
    tasks: N lists.
    mode: TARGETED or REJECTION.
    attempts: how often a list is asked at most, 1 or more.
    acceptance: what answers are measured by.
    seed: of all requests; see `asking.request_seed`.
    journal: the answers that are there, and where new ones go.
    insist: continue though the first answers are all rejected; see `Trial`.

  Returns:
    (traces in the order of the tasks, tally).

  Raises:
    ValueError: an unknown mode, no attempt, a request that holds a hint, or a
      target that is not among its candidates.
    RuntimeError: the teacher left requests out, or answered one twice.
    trial.VainError: the first answers are all rejected.
  """
  _check(tasks, mode, attempts)
  asker = asking.Asker(teacher, tasks, mode, acceptance, seed, journal, insist)
  tally = Tally(
    len(tasks), [0] * attempts, [0] * attempts, dict.fromkeys(REASONS, 0)
  )
  found: dict[int, Trace] = {}
  pending = list(range(len(tasks)))
  for attempt in range(attempts):
    if not pending:
      break
    title = f'{mode}, attempt {attempt + 1} of {attempts}'
    judged = asker.ask(pending, attempt, title)
    for row in pending:
      answer, reason = judged[row]
      tally.add(attempt, answer, reason)
      if reason is None:
        ranking = acceptance_lib.order(answer.ranking, tasks[row].target)
        found[row] = Trace(row, ranking, answer.explanation, attempt)
    pending = [row for row in pending if row not in found]
  traces = [found[row] for row in sorted(found)]
  texts = [trace.explanation for trace in traces]
  near = explanations.near_duplicates(texts, acceptance.near_duplicate)
  for index in near:
    tally.by_attempt[traces[index].attempt] -= 1
    tally.rejected[acceptance_lib.NEAR_DUPLICATE] += 1
  return [t for index, t in enumerate(traces) if index not in near], tally


def _check(tasks: Sequence[asking.Task], mode: str, attempts: int) -> None:
  modes = (TARGETED, REJECTION)
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
