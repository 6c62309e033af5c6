"""Chat completions: requests, replies and refusals, without a network.

What a server sent is read believing nothing: bytes to a `Reply`. A `Fault` may
pass: a time-out, a dropped connection, a broken answer, a server that is busy.
What is `Refused` stays refused and ends the run.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

STOP, LENGTH, REFUSED, THOUGHT = 'stop', 'length', 'refused', 'thought'
# Where servers put a thought, apart from the answer.
_THOUGHTS = ('reasoning_content', 'reasoning')
# A longer body is no answer to what is asked here.
MOST_BYTES = 16 * 2**20
# What hosts append to the name that they were asked for: a date or a revision.
_SUFFIX = re.compile(r'(-\d{4}-\d{2}-\d{2}|-\d{4,8}|@[\w.-]+)')
_RENAMED = 'max_completion_tokens'
_TOO_LONG = re.compile(
  r'context|too long|too large|maximum.{0,20}(length|token)'
)


class Fault(Exception):
  """A request that failed but may succeed when it is made again.

  Attributes:
    wait: seconds that the server asked to wait; 0 where it did not.
  """

  def __init__(self, message: str, wait: float = 0.0):
    """Keeps what happened, in words without secrets."""
    super().__init__(message)
    self.wait = wait


class Refused(Exception):
  """A request that the server refused; asking again would not help.

  Attributes:
    status: the HTTP status.
    message: what the server said, without secrets.
  """

  def __init__(self, status: int, message: str):
    """Keeps the server's words."""
    super().__init__(f'{status}: {message}')
    self.status = status
    self.message = message


class EndpointError(RuntimeError):
  """A server does not do what the run needs; the message has the remedy."""


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One request.

  Attributes:
    messages: the conversation, `role` and `content` each.
    temperature: of sampling.
    top_p: of sampling.
    max_tokens: longest answer.
    seed: for servers that sample by one.
    schema: JSON schema of the answer, or None.
  """

  messages: Sequence[Mapping[str, str]]
  temperature: float
  top_p: float
  max_tokens: int
  seed: int
  schema: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Dialect:
  """What a server was found to understand.

  Attributes:
    schema: whether `response_format` is sent.
    limit: what the longest answer is called; some hosts know the new name only.
  """

  schema: bool
  limit: str = 'max_tokens'

  def fields(self, prompt: Prompt) -> dict[str, Any]:
    """Returns the part of a request that depends on the dialect."""
    fields: dict[str, Any] = {self.limit: prompt.max_tokens}
    if self.schema and prompt.schema is not None:
      answer = {'name': 'answer', 'strict': True, 'schema': dict(prompt.schema)}
      fields['response_format'] = {'type': 'json_schema', 'json_schema': answer}
    return fields

  def after(
    self, refused: Refused, prompt: Prompt, insists: bool
  ) -> 'Dialect | None':
    """Returns what to try when a request was refused; None for nothing."""
    if refused.status not in (400, 422):
      return None
    if self.limit != _RENAMED and _RENAMED in refused.message:
      return dataclasses.replace(self, limit=_RENAMED)
    if self.schema and prompt.schema is not None and not insists:
      return dataclasses.replace(self, schema=False)
    return None

  def renames(self, other: 'Dialect') -> bool:
    """Returns whether `other` alone has the new name of the limit."""
    return self.limit != _RENAMED and other.limit == _RENAMED

  def simplest(self, other: 'Dialect') -> 'Dialect':
    """Returns what both understand."""
    limit = other.limit if self.renames(other) else self.limit
    return Dialect(self.schema and other.schema, limit)


@dataclasses.dataclass(frozen=True)
class Reply:
  """One answer of a chat server.

  Attributes:
    model: who answered, by the server's word.
    text: what it wrote; may be empty.
    end: STOP, LENGTH (the answer was cut off at its limit), THOUGHT (`text` is
      all that it wrote, and the server calls it a thought) or REFUSED (a filter
      or the model itself declined, or nothing was written).
    prompt_tokens: that it read; None where the server does not say.
    completion_tokens: that it wrote; None where the server does not say.
  """

  model: str
  text: str
  end: str
  prompt_tokens: int | None
  completion_tokens: int | None


def read_reply(body: bytes) -> Reply:
  """Reads the body of a chat completion.

  Args:
    body: what the server sent.

  Returns:
    The first of its choices.

  Raises:
    Fault: it is not UTF-8, not JSON, or no chat completion. Its message
      may hold the server's words.
  """
  try:
    value = json.loads(body.decode('utf-8'))
  except UnicodeDecodeError as error:
    raise Fault(f'the answer is not UTF-8 at byte {error.start}') from None
  except (ValueError, RecursionError):
    raise Fault(f'the answer of {len(body)} bytes is not whole JSON') from None
  if isinstance(value, dict) and value.get('error'):
    raise Fault(f'an error in place of an answer: {value["error"]}')
  model = _get(value, 'model', str)
  choices = _get(value, 'choices', list)
  if not choices:
    raise Fault('the answer has no choices')
  message = _get(choices[0], 'message', dict)
  text = _text(message)
  finish = _get(choices[0], 'finish_reason', str, optional=True)
  end = STOP
  if not text.strip():
    found = (message.get(key) for key in _THOUGHTS)
    thought = next((x for x in found if isinstance(x, str) and x.strip()), '')
    text, end = (thought, THOUGHT) if thought else (text, REFUSED)
  if finish in ('length', 'max_tokens'):
    end = LENGTH
  elif finish == 'content_filter' or message.get('refusal'):
    end = REFUSED
  usage = _get(value, 'usage', dict, optional=True) or {}
  return Reply(
    model,
    # Half a surrogate pair can be escaped in JSON, but not be written to files.
    text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace'),
    end,
    _count(usage, 'prompt_tokens'),
    _count(usage, 'completion_tokens'),
  )


def is_from(reply: Reply, model: str, alias: str) -> bool:
  """Returns whether a reply is from the model that was asked.

  Args:
    reply: the reply.
    model: the name that was asked for.
    alias: another name for it that the server may use; '' for none.

  Returns:
    True where the server's name is one of the two, or the one asked for and a
    date or a revision ('-2026-01-31', '-0131', '@main').
  """
  if reply.model == model or (alias and reply.model == alias):
    return True
  begins = reply.model.startswith(model)
  return begins and bool(_SUFFIX.fullmatch(reply.model[len(model) :]))


def remedy(refused: Refused, model: str) -> str:
  """Returns what a user can do about a request that a model refused."""
  message = refused.message.lower()
  if refused.status in (401, 403):
    return 'Put a valid key into the environment variable GR2_TEACHER_API_KEY.'
  if _TOO_LONG.search(message):
    return (
      'The prompt and the answer do not fit into its context: lower '
      'traces.prompt.history_items or traces.sampling.max_tokens, or serve the '
      'model with a longer context.'
    )
  named = re.search(rf'[\'"`]{re.escape(model.lower())}\\?[\'"`]', message)
  if refused.status == 404 or 'model' in message or named:
    return (
      'Correct traces.model (GET endpoint.url + "/models" lists what is served)'
      ' or endpoint.url (it mostly ends in /v1).'
    )
  return 'Correct what it names, in the sections traces and endpoint.'


def _get(value: Any, key: str, kind: type, optional: bool = False) -> Any:
  found = value.get(key) if isinstance(value, dict) else None
  if isinstance(found, kind) or (optional and found is None):
    return found
  raise Fault(
    f'the answer is no chat completion: {key!r} is missing or not of type '
    f'{kind.__name__}'
  )


def _text(message: dict) -> str:
  """Returns the content of a message: a text, or pieces of which some are."""
  content = message.get('content')
  pieces = content if isinstance(content, list) else [None]
  if not all(isinstance(piece, dict) for piece in pieces):
    return _get(message, 'content', str, optional=True) or ''
  told = [piece for piece in pieces if piece.get('type') == 'text']
  return ''.join(_get(piece, 'text', str) for piece in told)


def _count(usage: dict, key: str) -> int | None:
  """Returns a number of tokens, or None where there is no usable one."""
  number = usage.get(key)
  usable = isinstance(number, int) and not isinstance(number, bool)
  return number if usable and 0 <= number < 2**53 else None
