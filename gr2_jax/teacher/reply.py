"""Reads what a chat server sent, believing nothing: bytes to a reply."""

import dataclasses
import json
import re
from typing import Any

from gr2_jax.teacher import faults

STOP, LENGTH, REFUSED, THOUGHT = 'stop', 'length', 'refused', 'thought'
# Where servers put a thought, apart from the answer.
_THOUGHTS = ('reasoning_content', 'reasoning')
# A longer body is no answer to what is asked here.
MOST_BYTES = 16 * 2**20
# What hosts append to the name that they were asked for: a date or a revision.
_SUFFIX = re.compile(r'(-\d{4}-\d{2}-\d{2}|-\d{4,8}|@[\w.-]+)')


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


def read(body: bytes) -> Reply:
  """Reads the body of a chat completion.

  Args:
    body: what the server sent.

  Returns:
    The first of its choices.

  Raises:
    faults.Fault: it is not UTF-8, not JSON, or no chat completion. Its message
      may hold the server's words.
  """
  try:
    value = json.loads(body.decode('utf-8'))
  except UnicodeDecodeError as error:
    raise faults.Fault(
      f'the answer is not UTF-8 at byte {error.start}'
    ) from None
  except (ValueError, RecursionError):
    raise faults.Fault(
      f'the answer of {len(body)} bytes is not whole JSON'
    ) from None
  if isinstance(value, dict) and value.get('error'):
    raise faults.Fault(f'an error in place of an answer: {value["error"]}')
  model = _get(value, 'model', str)
  choices = _get(value, 'choices', list)
  if not choices:
    raise faults.Fault('the answer has no choices')
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


def _get(value: Any, key: str, kind: type, optional: bool = False) -> Any:
  found = value.get(key) if isinstance(value, dict) else None
  if isinstance(found, kind) or (optional and found is None):
    return found
  raise faults.Fault(
    f'the answer is no chat completion: {key!r} is missing or not of type '
    f'{kind.__name__}'
  )


def _text(message: dict) -> str:
  """Returns the content of a message: a text, or parts of which some are."""
  content = message.get('content')
  parts = content if isinstance(content, list) else [None]
  if not all(isinstance(part, dict) for part in parts):
    return _get(message, 'content', str, optional=True) or ''
  told = [part for part in parts if part.get('type') == 'text']
  return ''.join(_get(part, 'text', str) for part in told)


def _count(usage: dict, key: str) -> int | None:
  """Returns a number of tokens, or None where there is no usable one."""
  number = usage.get(key)
  usable = isinstance(number, int) and not isinstance(number, bool)
  return number if usable and 0 <= number < 2**53 else None
