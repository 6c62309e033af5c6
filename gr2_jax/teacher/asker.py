"""Asks a teacher: what the journal lacks is asked, kept and judged.

The first answers are on trial, before more are paid for. Where all of them are
rejected in one way, so will the others be: the run stops, shows one and says
what is likely to help.
"""

import collections
import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from gr2_jax import progress
from gr2_jax.teacher import acceptance as acceptance_lib
from gr2_jax.teacher import base
from gr2_jax.teacher import journal as journal_lib

# Answers on trial [our choice].
FIRST_ANSWERS = 32
_SHOWN = 300
# An answer and why it is rejected; None: it is kept.
Judged = tuple[base.Answer, str | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """A list that is to be explained.

  Attributes:
    user: whose; with `position` it gives the seeds of its requests.
    position: place of the true item in the user's sequence.
    request: the list, without a hint.
    target: the true item, one of the candidates.
  """

  user: int
  position: int
  request: base.Request
  target: int


class FirstAnswersError(RuntimeError):
  """The first answers were rejected in one way; they are kept."""


class Asker:
  """Asks about lists, and keeps and judges what comes."""

  def __init__(
    self,
    teacher: base.Teacher,
    tasks: Sequence[Task],
    *,
    mode: str,
    acceptance: acceptance_lib.Acceptance,
    seed: int,
    journal: journal_lib.Journal,
    insist: bool = False,
  ):
    """Makes the requests; see `sampling.collect`."""
    self._teacher, self._tasks, self._mode = teacher, tasks, mode
    self._acceptance, self._seed = acceptance, seed
    self._journal = journal
    self._trial = Trial(teacher.name, journal, insist)
    self._requests = [_request(task, mode) for task in tasks]
    places = [(task.user, task.position) for task in tasks]
    self._keys = journal_lib.keys(places, self._requests)

  def ask(
    self, rows: Sequence[int], attempt: int, title: str
  ) -> dict[int, Judged]:
    """Returns each row's answer, judged.

    Args:
      rows: indices of tasks.
      attempt: from 0.
      title: of the progress bar.

    Raises:
      RuntimeError: the teacher left requests out, answered one twice, or has a
        problem that is none of `REASONS`.
      FirstAnswersError: the first answers are all rejected.
    """
    stored = {row: self._journal.get(self._keys[row], attempt) for row in rows}
    missing = [row for row in rows if stored[row] is None]
    judged = {
      row: self._judge(row, answer)
      for row, answer in stored.items()
      if answer is not None
    }
    for _, reason in judged.values():
      self._trial.passes(reason)
    # Those on trial come first and alone: none is under way when it fails.
    first = missing[: self._trial.left]
    with progress.bar(
      total=len(rows), desc=title, unit='answer', initial=len(judged)
    ) as bar:
      meter = _Meter(bar)
      for chunk in (first, missing[len(first) :]):
        for group in self._answers(chunk, attempt):
          new = self._keep(group, attempt)
          judged |= new
          meter.show(new.values())
          for row, (_, reason) in new.items():
            self._trial.add(self._keys[row], attempt, reason)
    return judged

  def _keep(
    self, group: list[tuple[int, base.Answer]], attempt: int
  ) -> dict[int, Judged]:
    """Keeps answers, and then judges them."""
    self._journal.append(
      [(self._keys[row], attempt, answer) for row, answer in group]
    )
    # As the journal has them: then a resumed run sees the same.
    return {
      row: self._judge(row, self._journal.get(self._keys[row], attempt))
      for row, _ in group
    }

  def _answers(
    self, rows: Sequence[int], attempt: int
  ) -> Iterator[list[tuple[int, base.Answer]]]:
    """Yields groups of (row, answer); each row once."""
    if not rows:
      return
    requests = [self._requests[row] for row in rows]
    seeds = [
      request_seed(
        self._seed, self._tasks[row].user, self._tasks[row].position, attempt
      )
      for row in rows
    ]
    left = set(range(len(rows)))
    for group in self._teacher.answer(requests, attempt, seeds):
      for index, answer in group:
        if answer.problem not in (None, *acceptance_lib.REASONS):
          raise RuntimeError(
            f'The teacher {self._teacher.name!r} gave {answer.problem!r} as '
            f'the problem of an answer; use one of {acceptance_lib.REASONS}.'
          )
        if index not in left:
          raise RuntimeError(
            f'The teacher {self._teacher.name!r} answered request {index} of '
            f'{len(rows)} twice, or there is none of that number: this is an '
            'error in its code.'
          )
        left.remove(index)
      yield [(rows[index], answer) for index, answer in group]
    if left:
      raise RuntimeError(
        f'The teacher {self._teacher.name!r} left {len(left)} of {len(rows)} '
        'requests without an answer: this is an error in its code.'
      )

  def _judge(self, row: int, answer: base.Answer) -> Judged:
    return answer, acceptance_lib.rejection_reason(
      answer,
      self._requests[row],
      self._tasks[row].target,
      self._mode,
      self._acceptance,
    )


class Trial:
  """Counts new answers until `FIRST_ANSWERS` are there, and judges them once.

  It is passed where one is kept, or is sound but for the item on top, which
  rejection sampling expects; where they are rejected for different reasons,
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
    return 0 if self._passed else FIRST_ANSWERS - self._counts.total()

  def passes(self, reason: str | None) -> None:
    """Passes it where an answer of an earlier run was kept."""
    self._passed = self._passed or reason is None

  def add(self, key: journal_lib.Key, attempt: int, reason: str | None) -> None:
    """Counts a new answer.

    Args:
      key: of its list.
      attempt: which one, from 0.
      reason: why it was rejected; None: it is kept.

    Raises:
      FirstAnswersError: it is the last one on trial, and all are rejected.
    """
    if self._passed:
      return
    if reason in (None, acceptance_lib.WRONG_TOP):
      self._passed = True
      return
    self._counts[reason] += 1
    self._places.setdefault(reason, (key, attempt))
    if self._counts.total() < FIRST_ANSWERS:
      return
    unreadable = set(self._counts) <= set(acceptance_lib.UNREADABLE)
    self._passed = len(self._counts) > 1 and not unreadable
    if not self._passed:
      raise FirstAnswersError(self._message())

  def _message(self) -> str:
    (reason, _), *_ = self._counts.most_common(1)
    text = self._journal.text(*self._places[reason])
    return failure_message(
      self._teacher,
      acceptance_lib.advice(self._counts),
      text,
      self._journal.path,
    )


class _Meter:
  """Shows the acceptance and the speed of new answers on a progress bar."""

  def __init__(self, bar: Any):
    self._bar, self._started = bar, time.monotonic()
    self._answers = self._kept = self._tokens = 0

  def show(self, group: Collection[Judged]) -> None:
    """Counts a new group of answers."""
    self._answers += len(group)
    self._kept += sum(reason is None for _, reason in group)
    self._tokens += sum(answer.completion_tokens for answer, _ in group)
    facts = {'accepted': f'{self._kept / max(self._answers, 1):.1%}'}
    if self._tokens:
      seconds = max(time.monotonic() - self._started, 1e-3)
      facts['tokens/s'] = f'{self._tokens / seconds:.0f}'
    self._bar.set_postfix(facts, refresh=False)
    self._bar.update(len(group))


def request_seed(seed: int, user: int, position: int, attempt: int) -> int:
  """Returns the seed of one request, in [0, 2^31).

  It follows from the list alone: neither from what else is asked nor from when.
  """
  text = f'{seed}:{user}:{position}:{attempt}'
  digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'big') >> 1


def failure_message(
  teacher: str, said: str, text: str, kept: pathlib.Path
) -> str:
  """Writes the message of a `FirstAnswersError`.

  Args:
    teacher: who answered.
    said: what is wrong, and what is likely to help.
    text: one of the answers.
    kept: where they are.
  """
  shown = repr(text[:_SHOWN]) + ' ...' * (len(text) > _SHOWN)
  begins = f'One begins: {shown}.' if text else 'They have no text.'
  return (
    f'The first {FIRST_ANSWERS} answers of {teacher!r} are all rejected '
    f'({said}). {begins} All answers are kept in {kept}, and no further ones '
    'were asked for. Start the same command again when that is fixed, or with '
    '--insist to continue as it is.'
  )


def _request(task: Task, mode: str) -> base.Request:
  """Returns what the teacher is asked: with a hint in targeted mode alone."""
  hint = task.target if mode == acceptance_lib.TARGETED else None
  return dataclasses.replace(task.request, hint=hint)
