"""Many prompts to one server of OpenAI's chat completions, through `openai`.

Requests run side by side in an event loop of their own thread, so that a slow
reader makes none of them late. Whatever ends a run lets the requests under way
end first: they may be paid for.

Requests are tried again here and not by the library. It knows nothing of
answers that break off or are no completions, counts no try for the budget,
keeps no Retry-After above two minutes, and would wait on when the run ends.
"""

import queue
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import openai
from absl import logging

from gr2_jax.teacher import config as teacher_config
from gr2_jax.teacher import connection, protocol

# Longest pause between two tries, and the longest that a server may ask for.
LONGEST_PAUSE = 60.0
LONGEST_ASKED = 300.0


class BudgetError(RuntimeError):
  """The budget is spent; what was answered is kept."""


class Budget:
  """Requests and tokens: what may be spent and what is."""

  def __init__(
    self, max_requests: int, max_tokens: int, requests: int, tokens: int
  ):
    """Starts to count.

    Args:
      max_requests: requests that may be started, tries again included; 0 for
        no limit.
      max_tokens: tokens of prompts and answers; 0 for no limit. No request is
        started once as many are spent, so that it is exceeded by those of the
        requests under way at most.
      requests: spent by earlier runs.
      tokens: spent by earlier runs.
    """
    self._max_requests = max_requests
    self._max_tokens = max_tokens
    self.requests = requests
    self.tokens = tokens

  def begin(self) -> bool:
    """Books one request, or says by False that the budget is spent."""
    if 0 < self._max_requests <= self.requests:
      return False
    if 0 < self._max_tokens <= self.tokens:
      return False
    self.requests += 1
    return True

  @property
  def counts_tokens(self) -> bool:
    """Whether tokens are limited."""
    return self._max_tokens > 0

  def error(self) -> BudgetError:
    """Returns what is said when the budget is spent."""
    return BudgetError(
      f'The budget is spent: {self.requests} requests (endpoint.max_requests='
      f'{self._max_requests or "no limit"}) and {self.tokens} tokens '
      f'(endpoint.max_tokens={self._max_tokens or "no limit"}). All answers '
      'are kept. Raise what is spent and start the same command again: it '
      'asks only for what is missing.'
    )


class _Run:
  """What the requests of one call of `Client.ask` share."""

  def __init__(
    self, prompts: Iterable[protocol.Prompt], put: Callable[[Any], None]
  ):
    self.prompts = iter(enumerate(prompts))
    self.put = put
    self.failure: Exception | None = None
    self.spent = False
    self.stop = anyio.Event()

  def fail(self, failure: Exception) -> None:
    """Lets no further request begin; the first failure is the one told."""
    self.failure = self.failure or failure
    self.stop.set()

  def spend(self) -> None:
    """Lets no further request begin, because the budget is spent."""
    self.spent = True
    self.stop.set()

  async def rest(self, seconds: float) -> bool:
    """Waits; False where the run is ending meanwhile."""
    with anyio.move_on_after(seconds):
      await self.stop.wait()
    return not self.stop.is_set()


class Client:
  """One model on one server."""

  def __init__(
    self,
    cfg: teacher_config.EndpointConfig,
    model: str,
    spent: tuple[int, int] = (0, 0),
  ):
    """Checks all that can be checked without asking.

    Args:
      cfg: how to ask.
      model: the name by which the server knows the model.
      spent: requests and tokens of earlier runs, which count for the budget.

    Raises:
      ValueError: an address, a key or a name that cannot be used.
    """
    if not model:
      raise ValueError(
        'traces.model is empty; name the model that the server at endpoint.url '
        'shall use.'
      )
    key = connection.Key()
    connection.check_url(cfg.url, bool(key))
    self._connection = connection.Connection(cfg, model, key)
    self._cfg = cfg
    self._model = model
    self._dialect = protocol.Dialect(
      schema=cfg.structured != teacher_config.NONE
    )
    self._told_usage = False
    self.budget = Budget(cfg.max_requests, cfg.max_tokens, *spent)

  def ask(
    self, prompts: Iterable[protocol.Prompt]
  ) -> Iterator[list[tuple[int, protocol.Reply]]]:
    """Asks them all, some at a time.

    Args:
      prompts: what to ask; read as requests begin.

    Yields:
      Groups of (index of a prompt, its reply), as they come.

    Raises:
      BudgetError: the budget is spent.
      protocol.EndpointError: the server refuses a request, answers as another
        model, or gives no answer after all tries. Before any error the replies
        of the requests under way are yielded.
    """
    replies: queue.SimpleQueue = queue.SimpleQueue()
    with anyio.from_thread.start_blocking_portal() as portal:
      task = portal.start_task_soon(self._ask_all, prompts, replies.put)
      task.add_done_callback(lambda _: replies.put(None))
      running = True
      while running:
        group = [replies.get()]
        while not replies.empty():
          group.append(replies.get())
        if group[-1] is None:
          group.pop()
          running = False
        if group:
          yield group
      failure = task.result()
    if failure is not None:
      raise failure

  async def _ask_all(
    self, prompts: Iterable[protocol.Prompt], put: Callable[[Any], None]
  ) -> Exception | None:
    """Returns what ended the run early."""
    run = _Run(prompts, put)
    async with self._connection.open() as client:
      async with anyio.create_task_group() as tasks:
        for _ in range(self._cfg.concurrency):
          tasks.start_soon(self._work, client, run)
    if run.spent and run.failure is None:
      return self.budget.error()
    return run.failure

  async def _work(self, client: openai.AsyncOpenAI, run: _Run) -> None:
    while not run.stop.is_set():
      try:
        index, prompt = next(run.prompts, (-1, None))
        if prompt is None:
          return
        found = await self._answer(client, prompt, run)
      except Exception as error:  # Raised when the others have ended.
        run.fail(error)
        return
      if found is not None:
        run.put((index, found))

  async def _answer(
    self, client: openai.AsyncOpenAI, prompt: protocol.Prompt, run: _Run
  ) -> protocol.Reply | None:
    """Returns the reply, or None where the run ends before there is one."""
    dialect, failures = self._dialect, 0
    insists = self._cfg.structured == teacher_config.SCHEMA
    while True:
      if not self.budget.begin():
        run.spend()
        return None
      try:
        found = await self._connection.send(client, prompt, dialect)
      except protocol.Refused as refused:
        simpler = dialect.after(refused, prompt, insists)
        if simpler is None:
          raise self._refusal(refused) from None
        dialect = simpler
      except protocol.Fault as fault:
        failures += 1
        if failures > self._cfg.retries:
          raise self._given_up(fault, failures) from None
        seconds = pause(failures, self._cfg.backoff, fault.wait)
        logging.log_every_n_seconds(
          logging.WARNING,
          '%s; trying again in %.1f s',
          10,
          f'{self._cfg.url}: {fault}',
          seconds,
        )
        if not await run.rest(seconds):
          return None
      else:
        self._learn(dialect)
        self._book(found, run)
        return found

  def _learn(self, dialect: protocol.Dialect) -> None:
    """Keeps for later requests what worked in place of what was refused."""
    known = self._dialect
    if known.renames(dialect):
      logging.info('%s wants %r.', self._cfg.url, dialect.limit)
    if known.schema and not dialect.schema:
      logging.warning(
        '%s refuses JSON by schema (response_format); the run continues '
        'without it, so more answers may be unreadable.',
        self._cfg.url,
      )
    self._dialect = known.simplest(dialect)

  def _book(self, found: protocol.Reply, run: _Run) -> None:
    """Counts the tokens of a reply."""
    counts = (found.prompt_tokens, found.completion_tokens)
    self.budget.tokens += sum(count or 0 for count in counts)
    if None not in counts:
      return
    if self.budget.counts_tokens:
      run.fail(
        protocol.EndpointError(
          f'{self._cfg.url} does not say how many tokens it read and wrote, so '
          'endpoint.max_tokens cannot be kept: set it to 0 and limit the run '
          'by endpoint.max_requests.'
        )
      )
    elif not self._told_usage:
      self._told_usage = True
      logging.warning(
        '%s does not say how many tokens it read and wrote: they count as 0 in '
        'reports.',
        self._cfg.url,
      )

  def _refusal(self, refused: protocol.Refused) -> protocol.EndpointError:
    return protocol.EndpointError(
      f'{self._cfg.url} refused a request to the model {self._model!r} with '
      f'status {refused}. {protocol.remedy(refused, self._model)} All answers '
      'so far are kept.'
    )

  def _given_up(
    self, fault: protocol.Fault, tries: int
  ) -> protocol.EndpointError:
    by_schema = self._dialect.schema and 'status 5' in str(fault)
    hint = (
      ' If it is JSON by schema that fails there, set '
      f'endpoint.structured={teacher_config.NONE!r}.'
    )
    return protocol.EndpointError(
      f'{self._cfg.url} (model {self._model!r}) gave no answer in {tries} '
      f'tries; the last one: {fault}. All answers so far are kept: start the '
      'same command again when the server answers.' + by_schema * hint
    )


def pause(failures: int, first: float, asked: float) -> float:
  """Returns how long to wait before the next try.

  Args:
    failures: how often the request has failed, 1 or more.
    first: seconds after the first failure; doubled with each further one, up to
      LONGEST_PAUSE.
    asked: seconds that the server asked for; never undercut up to
      LONGEST_ASKED.

  Returns:
    Seconds, with jitter, so that requests which failed together do not come
    back together.
  """
  longest = min(first * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE)
  jittered = random.uniform(longest / 2, longest)
  return max(jittered, min(asked, LONGEST_ASKED))
