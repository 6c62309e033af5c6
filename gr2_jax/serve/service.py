"""The server without HTTP: queue, deadlines, fallbacks, reloads, new items."""

import asyncio
import concurrent.futures
import dataclasses
import functools
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from gr2_jax.serve import answers, batcher, metrics, requests

DIRECT, EXPLAINED = 'direct', 'explained'


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a server works; our choices.

  Attributes:
    batch_size: lists answered at a time, at most.
    wait: seconds that a list waits for others to share its batch.
    bound: lists that may wait, of each kind.
    deadline: seconds after which a list gets its incoming order.
    explained_deadline: the same where an explanation is wanted.
    token: that requests bear; none is asked for if empty.
    admin_token: that reloads and new items bear; none are taken if empty.
    remote_admin: whether those may come from other machines.
    catalogue: where new items are kept; None for memory alone.
    limits: sizes of requests.
    workers: processes that answer behind one port.
  """

  batch_size: int = 32
  wait: float = 0.002
  bound: int = 256
  deadline: float = 1.0
  explained_deadline: float = 30.0
  token: str = dataclasses.field(default='', repr=False)
  admin_token: str = dataclasses.field(default='', repr=False)
  remote_admin: bool = False
  catalogue: pathlib.Path | None = None
  limits: requests.Limits = requests.Limits()
  workers: int = 1


class Service:
  """Answers requests with an engine, which can be exchanged.

  Attributes:
    engine: an `engine.Engine`, or what does as one.
    settings: the settings.
    metrics: what is counted.
    ready: whether all shapes are compiled.
    failed: why they never will be; empty so far.
    load: gives the engine of a run.
  """

  def __init__(
    self,
    engine: Any,
    settings: Settings,
    load: Callable[[pathlib.Path], Any],
  ):
    """Starts a thread for each kind of answers.

    One explanation takes as long as many direct answers, which do not wait for
    it: on CPUs both are computed at the same time.

    Args:
      engine: the engine.
      settings: the settings.
      load: gives the engine of another run.
    """
    self.engine, self.settings = engine, settings
    self.metrics = metrics.Metrics()
    self.ready, self.failed = False, ''
    self.load = load
    self._changing = asyncio.Lock()
    self._started: concurrent.futures.Future | None = None
    self._batchers = {
      kind: batcher.Batcher(
        functools.partial(self._answer, kind),
        size=settings.batch_size,
        wait=settings.wait,
        bound=settings.bound,
        heard=functools.partial(self.metrics.heard, kind),
        counted=self.metrics.waiting.inc,
      )
      for kind in (DIRECT, EXPLAINED)
    }

  @property
  def limits(self) -> requests.Limits:
    """How large a request may be, with the candidates of the engine."""
    most = self.engine.most_candidates
    return dataclasses.replace(self.settings.limits, candidates=most)

  def count_compilation(self) -> None:
    """Counts a program that a request had to wait for."""
    own = [each.thread for each in self._batchers.values()]
    if self.ready and threading.current_thread() in own:
      self.metrics.compilations.inc()

  def start(self) -> concurrent.futures.Future:
    """Compiles all shapes on a thread, once; `ready` tells when it has."""
    if self._started is not None:
      return self._started

    def warm_up() -> None:
      begin = time.monotonic()
      try:
        self.engine.warm_up()
      except Exception as error:
        self.failed = f'{type(error).__name__}: {error}'
        logging.exception('The model could not be made ready.')
        return
      self.ready = True
      logging.info('Ready after %.1f s.', time.monotonic() - begin)

    self._started = self._batchers[DIRECT].call(warm_up)
    return self._started

  def close(self) -> None:
    """Answers what waits, and ends the threads, unless they compile."""
    for each in self._batchers.values() if self.ready else ():
      each.close()

  def _answer(
    self, kind: str, jobs: Sequence[batcher.Job]
  ) -> list[tuple[Any, Any]]:
    """Answers a batch; returns each answer with the engine that gave it."""
    engine = self.engine
    lists, where = [job.record for job in jobs], [job.where for job in jobs]
    return [(found, engine) for found in engine.answer(kind, lists, where)]

  def not_ready(self) -> requests.Refused:
    """Returns the refusal of what comes before all shapes are compiled."""
    return requests.Refused(
      *(503, 'not_ready', 'The model is being made ready: come again.'),
      {'Retry-After': '5'},
    )

  def check(self, request: requests.Request) -> None:
    """Checks a request against the model.

    Args:
      request: the request.

    Raises:
      requests.Refused: not ready, another model, or no explanations.
    """
    if not self.ready:
      raise self.not_ready()
    name = self.engine.name
    if request.model not in (None, name):
      raise requests.Refused(
        *(404, 'unknown_model'),
        f'There is no model {request.model[:80]!r}: this server has {name!r}.',
      )
    if request.explain and not self.engine.explains:
      raise requests.refuse(
        f"{name} writes no explanations: leave out 'explain'."
      )

  async def answer(self, request: requests.Request, kind: str) -> dict:
    """Answers a request.

    Args:
      request: the request, checked.
      kind: `DIRECT` or `EXPLAINED`.

    Returns:
      The document: that of its list, or `outputs`, one a list, in their order.

    Raises:
      requests.Refused: the queue is full, or its only list cannot be answered.
    """
    begin, engine = time.monotonic(), self.engine
    explained = kind == EXPLAINED
    settings = self.settings
    patience = settings.explained_deadline if explained else settings.deadline
    if request.timeout_ms is not None:
      patience = min(patience, request.timeout_ms / 1000)
    jobs = {
      i: batcher.Job(each.record, each.where)
      for i, each in enumerate(request.inputs)
      if not each.error
    }
    self._submit(kind, list(jobs.values()))
    await _wait([job.future for job in jobs.values()], begin + patience)
    outputs, done = [], []
    for i, each in enumerate(request.inputs):
      if each.error:
        outputs.append(answers.error('invalid_request', each.error))
        continue
      outputs.append(self._output(each, jobs[i], request, engine))
      if _is_done(jobs[i]):
        done.append(jobs[i].future.result())
    if not request.many and 'error' in outputs[0]:
      found = outputs[0]['error']
      status = 500 if found['type'] == 'internal_error' else 400
      raise requests.Refused(status, found['type'], found['message'])
    found = [each.answer[0].found for each in done]
    longest = lambda times: round(1000 * max(times, default=0.0), 3)
    return {
      'id': f'rerank-{uuid.uuid4().hex}',
      'model': done[0].answer[1].name if done else engine.name,
      **({'outputs': outputs} if request.many else outputs[0]),
      'usage': answers.usage([request.inputs[i] for i in jobs], found),
      'timings': {
        'queue_ms': longest([each.queued for each in done]),
        'device_ms': longest([each.seconds for each in done]),
        'total_ms': longest([time.monotonic() - begin]),
      },
    }

  def _submit(self, kind: str, jobs: list[batcher.Job]) -> None:
    try:
      self._batchers[kind].submit(jobs)
    except batcher.Full as error:
      self.metrics.rejected.inc()
      raise requests.Refused(
        *(429, 'overloaded', f'{error} Come again then, with fewer lists.'),
        {'Retry-After': str(error.retry_after)},
      ) from None

  def _output(
    self,
    given: requests.Input,
    job: batcher.Job,
    request: requests.Request,
    engine: Any,
  ) -> dict:
    """Returns the answer to one list, its fallback or its error."""
    if not _is_done(job):
      if job.future.done() and not job.future.cancelled():
        return answers.error(
          'internal_error', f'{job.where}: it could not be answered.'
        )
      if problem := requests.problem(given):
        return answers.error('invalid_request', problem)
      self.metrics.fallbacks.labels('deadline').inc()
      found = answers.fallback(given, 'deadline')
      return answers.answer(given, found, request, engine.title)
    answered, engine = job.future.result().answer
    if answered.failed:
      return answers.error('invalid_request', answered.record['error'])
    if not answered.record['valid']:
      self.metrics.fallbacks.labels('invalid').inc()
    return answers.answer(given, answered.record, request, engine.title)

  async def change(self, make: Callable[[], Any]) -> None:
    """Exchanges the engine, one change at a time.

    Args:
      make: gives the new engine; runs on a thread of its own.

    Raises:
      requests.Refused: it raised a ValueError or an OSError, or another change
        is in progress.
    """
    if self._changing.locked():
      raise requests.Refused(
        409, 'busy', 'Another change is in progress: try again after it.'
      )
    async with self._changing:
      try:
        made = await asyncio.to_thread(make)
        if self.settings.catalogue is not None and made.added:
          await asyncio.to_thread(made.save, self.settings.catalogue)
      except (ValueError, OSError) as error:
        raise requests.refuse(str(error)) from error
      self.engine = made


def _is_done(job: batcher.Job) -> bool:
  """Says whether a list has an answer."""
  future = job.future
  return future.done() and not future.cancelled() and not future.exception()


async def _wait(futures: Sequence, until: float) -> None:
  """Waits for futures; what still waits in the queue then is cancelled."""
  if not futures:
    return
  left = max(0.0, until - time.monotonic())
  wrapped = [asyncio.wrap_future(future) for future in futures]
  try:
    await asyncio.wait(wrapped, timeout=left)
  finally:
    for future, mine in zip(futures, wrapped, strict=True):
      future.cancel()
      if mine.done() and not mine.cancelled():
        mine.exception()
      mine.cancel()
