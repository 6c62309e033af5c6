"""Reads what a language model wrote: exactly, or not at all.

The only repairs [our choice]: the reasoning that some models put in front is
taken off, `<think>...</think>`, or with `thinking`, `thought`, `reasoning` or
`seed:think` in the tags, in any case, also where the chat template has opened
it and the text holds the closing tag alone; and so is one code fence around the
whole, of backticks or tildes, whatever its language is called.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from gr2_jax.teacher import acceptance, base
from gr2_jax.text import vocab as vocab_lib

_KEYS = ('explanation', 'recommendations')
_TAG = r'(?:\w+:)?(?:think|thinking|thought|reasoning)>'
_OPENED = re.compile(f'<{_TAG}', re.IGNORECASE)
_CLOSED = re.compile(f'</{_TAG}', re.IGNORECASE)
_FENCED = re.compile(r'(```|~~~)[a-zA-Z0-9]*(?P<inside>.*)\1', re.DOTALL)


def read(text: str, index: Mapping[str, int]) -> base.Answer:
  """Reads an answer.

  Args:
    text: all that the model wrote.
    index: bare semantic IDs of the whole catalogue, as text -> item.

  Returns:
    The answer with its text, or with a problem and neither ranking nor
    explanation: 'not_json' (no JSON object of Unicode text, or a key twice),
    'wrong_keys' (other keys, or values of other types), 'unknown_item' (a
    recommendation that is not, letter by letter, an item's semantic ID, with or
    without its wrappers). Whether the items are the candidates, each once, is
    `sampling.judge`'s.
  """
  problem = lambda reason: base.Answer([], '', reason, text)
  try:
    value = parse(text)
  except ValueError:
    return problem(acceptance.NOT_JSON)
  if not isinstance(value, dict) or set(value) != set(_KEYS):
    return problem(acceptance.WRONG_KEYS)
  explanation, named = (value[key] for key in _KEYS)
  if not isinstance(explanation, str) or not isinstance(named, list):
    return problem(acceptance.WRONG_KEYS)
  if not all(isinstance(name, str) for name in named):
    return problem(acceptance.WRONG_KEYS)
  ranking = [index.get(_bare(name)) for name in named]
  if None in ranking:
    return problem(acceptance.UNKNOWN_ITEM)
  return base.Answer(ranking, explanation, text=text)


def parse(text: str) -> Any:
  """Returns the JSON value of an answer, without its thought and its fence.

  A closing tag inside of an answer that is JSON by itself is its text.

  Args:
    text: all that the model wrote.

  Raises:
    ValueError: it is no JSON of Unicode text.
  """
  text = text.strip()
  try:
    return _value(text)
  except ValueError:
    closed = _CLOSED.search(text)
    # A tag that opens stands at the begin, or was part of the prompt.
    if not closed or _OPENED.search(text, 1, closed.start()):
      raise
  return _value(text[closed.end() :].strip())


def _value(text: str) -> Any:
  fenced = _FENCED.fullmatch(text)
  try:
    value = json.loads(
      fenced['inside'] if fenced else text,
      object_pairs_hook=_once,
      parse_constant=_no_such_number,
    )
  except RecursionError as error:
    raise ValueError('Too many brackets.') from error
  # A lone surrogate, which JSON can spell, is no text.
  json.dumps(value, ensure_ascii=False).encode()
  return value


def _once(pairs: list[tuple[str, Any]]) -> dict:
  found = dict(pairs)
  if len(found) < len(pairs):
    raise ValueError(f'A key stands twice: {[key for key, _ in pairs]}.')
  return found


def _no_such_number(name: str) -> None:
  raise ValueError(f'{name} is no JSON.')


def _bare(name: str) -> str:
  begin, end = vocab_lib.WRAPPERS
  if name.startswith(begin) and name.endswith(end):
    return name[len(begin) : -len(end)]
  return name
