"""A thread that answers requests in batches.

    batcher = Batcher(answer, size=32, wait=0.002, bound=256)
    jobs = batcher.submit([...])
    jobs[0].future.result()

A batch starts when the thread is free and it is full, or its oldest list has
waited `wait` seconds. It takes a power of two of lists, no more than wait: the
ranker fills any other number up, and computes what fills it.
"""

import collections
import concurrent.futures
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging


class Full(Exception):
  """The queue has no room.

  Attributes:
    retry_after: in how many seconds there may be some.
  """

  def __init__(self, retry_after: int):
    """Says when to come again."""
    super().__init__(f'The queue is full for about {retry_after} s.')
    self.retry_after = retry_after


@dataclasses.dataclass
class Job:
  """One list that waits, or is answered.

  Attributes:
    record: the list.
    where: what to call it in errors.
    future: an `Answered`.
    arrived: of `time.monotonic`.
  """

  record: dict
  where: str
  future: concurrent.futures.Future = dataclasses.field(
    default_factory=concurrent.futures.Future
  )
  arrived: float = dataclasses.field(default_factory=time.monotonic)


@dataclasses.dataclass(frozen=True)
class Answered:
  """The answer to one list.

  Attributes:
    answer: what `answer` gave for it.
    queued: seconds that it waited.
    seconds: that its batch took.
    size: lists of its batch.
  """

  answer: Any
  queued: float
  seconds: float
  size: int


class Batcher:
  """Answers lists in batches; see above."""

  def __init__(
    self,
    answer: Callable[[Sequence[Job]], Sequence[Any]],
    *,
    size: int,
    wait: float,
    bound: int,
    heard: Callable[[list[Answered]], None] = lambda found: None,
    counted: Callable[[int], None] = lambda change: None,
  ):
    """Starts the thread.

    Args:
      answer: n jobs -> n answers; runs on the thread.
      size: lists of a batch, at most.
      wait: seconds that the oldest list of a batch waits for others.
      bound: lists that may wait.
      heard: called with the results of each batch.
      counted: called with the change of the number of waiting lists.
    """
    self._answer, self._heard, self._counted = answer, heard, counted
    self._size, self._wait, self._bound = size, wait, bound
    self._queue: collections.deque[Job] = collections.deque()
    self._calls: collections.deque = collections.deque()
    self._changed = threading.Condition()
    self._closed = False
    # Seconds a list takes, of the last batches.
    self._pace = 0.01
    self.thread = threading.Thread(target=self._run, name='device', daemon=True)
    self.thread.start()

  def __len__(self) -> int:
    """Returns how many lists wait."""
    return len(self._queue)

  def submit(self, jobs: Sequence[Job]) -> None:
    """Puts lists into the queue, all or none.

    Args:
      jobs: the lists.

    Raises:
      Full: there is no room for them.
      RuntimeError: the batcher is closed.
    """
    with self._changed:
      if self._closed:
        raise RuntimeError('The server is shutting down.')
      if len(self) + len(jobs) > self._bound:
        raise Full(min(60, math.ceil(self._pace * len(self)) or 1))
      self._queue.extend(jobs)
      self._counted(len(jobs))
      self._changed.notify()

  def call(self, function: Callable[[], Any]) -> concurrent.futures.Future:
    """Runs a function on the thread, before the lists that wait.

    Args:
      function: takes nothing.

    Returns:
      What it returns or raises.
    """
    future = concurrent.futures.Future()
    with self._changed:
      self._calls.append((function, future))
      self._changed.notify()
    return future

  def close(self) -> None:
    """Answers what waits, and ends the thread."""
    with self._changed:
      self._closed = True
      self._changed.notify()
    self.thread.join()

  def _run(self) -> None:
    while True:
      with self._changed:
        batch = self._next()
        call = self._calls.popleft() if batch is None else None
      if call is not None:
        _fulfil(*call)
      elif batch:
        self._work(batch)
      else:
        return

  def _next(self) -> list[Job] | None:
    """Waits for a batch; None for a call, [] for the end."""
    queue = self._queue
    while True:
      if self._calls:
        return None
      if not queue:
        if self._closed:
          return []
        self._changed.wait()
        continue
      left = queue[0].arrived + self._wait - time.monotonic()
      if len(queue) < self._size and left > 0 and not self._closed:
        self._changed.wait(left)
        continue
      # Who was cancelled meanwhile takes no place in the batch.
      batch: list[Job] = []
      size = 1 << min(len(queue), self._size).bit_length() - 1
      before = len(queue)
      while queue and len(batch) < size:
        job = queue.popleft()
        if job.future.set_running_or_notify_cancel():
          batch.append(job)
      self._counted(len(queue) - before)
      if batch:
        return batch

  def _work(self, batch: Sequence[Job]) -> None:
    """Answers a batch; one that fails is tried again list by list."""
    begin = time.monotonic()
    try:
      found = list(self._answer(batch))
    except Exception as error:
      if len(batch) > 1:
        for job in batch:
          self._work([job])
      else:
        logging.exception('A list could not be answered.')
        batch[0].future.set_exception(error)
      return
    seconds = time.monotonic() - begin
    self._pace += 0.2 * (seconds / len(batch) - self._pace)
    done = [
      Answered(answer, begin - job.arrived, seconds, len(batch))
      for job, answer in zip(batch, found, strict=True)
    ]
    self._heard(done)
    for job, answered in zip(batch, done, strict=True):
      job.future.set_result(answered)


def _fulfil(
  function: Callable[[], Any], future: concurrent.futures.Future
) -> None:
  try:
    future.set_result(function())
  except Exception as error:
    future.set_exception(error)
