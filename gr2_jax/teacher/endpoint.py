"""A teacher on a server: any with OpenAI's chat completions."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gr2_jax.teacher import acceptance, base, messages, protocol
from gr2_jax.teacher import config as teacher_config

if TYPE_CHECKING:
  from gr2_jax.teacher import client

# Of answers that are not read.
_PROBLEMS = {
  protocol.LENGTH: acceptance.CUT_OFF,
  protocol.REFUSED: acceptance.REFUSED,
}


class EndpointTeacher:
  """A language model that a server runs; see `base.Teacher`."""

  def __init__(
    self,
    writer: messages.Writer,
    sampling: teacher_config.SamplingConfig,
    cfg: teacher_config.EndpointConfig,
    model: str,
    spent: tuple[int, int] = (0, 0),
  ):
    """Checks the address and the key; nothing is asked yet.

    Args:
      writer: writes prompts and reads answers.
      sampling: how boldly answers are sampled, and how long they may be.
      cfg: the server and how it is asked.
      model: the name by which it knows the model.
      spent: requests and tokens of earlier runs, which count for the budget.

    Raises:
      ModuleNotFoundError: the client library is not installed.
      ValueError: an address, a key or a name that cannot be used.
    """
    self._writer = writer
    self._sampling = sampling
    self._client = make_client(cfg, model, spent)
    self.name = model
    self.identity = {
      'teacher': 'endpoint',
      'model': model,
      'prompt': writer.identity,
      'sampling': dataclasses.asdict(sampling),
    }

  def answer(
    self,
    requests: Sequence[base.Request],
    attempt: int,
    seeds: Sequence[int],
  ) -> Iterator[list[tuple[int, base.Answer]]]:
    """Asks the server; see `base.Teacher.answer`.

    Raises:
      client.BudgetError: the budget is spent; all answers that were under way
        have been yielded.
      protocol.EndpointError: the server does not do what is needed.
    """
    prompts = (
      self._prompt(request, attempt, seed)
      for request, seed in zip(requests, seeds, strict=True)
    )
    with contextlib.closing(self._client.ask(prompts)) as groups:
      for group in groups:
        yield [
          (index, self._read(found, requests[index])) for index, found in group
        ]

  def _prompt(
    self, request: base.Request, attempt: int, seed: int
  ) -> protocol.Prompt:
    return protocol.Prompt(
      messages=self._writer.messages(request),
      temperature=self._sampling.at(attempt),
      top_p=self._sampling.top_p,
      max_tokens=self._sampling.max_tokens,
      seed=int(seed),
      schema=self._writer.schema(request),
    )

  def _read(self, found: protocol.Reply, request: base.Request) -> base.Answer:
    if found.end in _PROBLEMS:
      answer = base.Answer([], '', problem=_PROBLEMS[found.end])
    else:
      answer = self._writer.read(found.text, request)
    problem = answer.problem
    if found.end == protocol.THOUGHT and problem in acceptance.UNREADABLE:
      problem = acceptance.ONLY_THOUGHT
    return dataclasses.replace(
      answer,
      problem=problem,
      text=found.text,
      prompt_tokens=found.prompt_tokens or 0,
      completion_tokens=found.completion_tokens or 0,
    )


def make_client(
  cfg: teacher_config.EndpointConfig,
  model: str,
  spent: tuple[int, int] = (0, 0),
) -> 'client.Client':
  """Makes what asks a server, by a library that not every run has.

  Args:
    cfg: the server and how it is asked.
    model: the name by which it knows the model.
    spent: requests and tokens of earlier runs, which count for the budget.

  Raises:
    ModuleNotFoundError: the client library is not installed.
    ValueError: an address, a key or a name that cannot be used.
  """
  try:
    from gr2_jax.teacher import client
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'To ask a server takes the package {error.name}: run '
      '`.venv/bin/pip install -r launch/requirements/teacher.txt`.'
    ) from error
  return client.Client(cfg, model, spent)
