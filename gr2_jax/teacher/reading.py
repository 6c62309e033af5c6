"""Reads what a language model wrote: exactly, or not at all.

The only repairs [our choice]: the reasoning that some models put in front,
`<think>...</think>`, is taken off, and so is one code fence around the whole.
"""

import json
from collections.abc import Mapping
from typing import Any

from gr2_jax.teacher import acceptance, base
from gr2_jax.text import vocab as vocab_lib

_KEYS = ('explanation', 'recommendations')
_THINK, _THOUGHT = '<think>', '</think>'
_FENCE = '```'


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
    value = _parse(unwrap(text))
  except (ValueError, RecursionError):
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


def unwrap(text: str) -> str:
  """Takes off a thought in front and a code fence around the rest."""
  text = text.strip()
  if text.startswith(_THINK) and _THOUGHT in text:
    text = text.partition(_THOUGHT)[2].strip()
  whole = len(text) >= 2 * len(_FENCE)
  if whole and text.startswith(_FENCE) and text.endswith(_FENCE):
    text = text[len(_FENCE) : -len(_FENCE)].removeprefix('json')
  return text


def _parse(text: str) -> Any:
  value = json.loads(
    text, object_pairs_hook=_once, parse_constant=_no_such_number
  )
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
