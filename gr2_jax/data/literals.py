"""Reads values that a table holds as text: lists, as JSON or Python write them.

Nothing of a text is run.
"""

import ast
import io
import itertools
import json
import tokenize
import warnings
from typing import Any


def looks_like_a_list(value: str) -> bool:
  """Says whether a text is in brackets; (so) is, with quotes alone."""
  pair = value[:1] + value[-1:]
  return pair in ('[]', '{}') or (pair == '()' and value[1:2] in ('"', "'"))


def listed(value: str) -> list[Any]:
  """Returns the list that a text spells, `['Beauty', 'Bath']`.

  Args:
    value: the text, in brackets.

  Returns:
    Its parts.

  Raises:
    ValueError: no list of JSON or Python, or texts side by side without a
      comma, as NumPy prints them, which Python would join.
  """
  found = literal(value)
  if not isinstance(found, (list, tuple)):
    raise ValueError(f'it is a {type(found).__name__}')
  if _joins_texts(value):
    raise ValueError('texts without a comma between them, as NumPy prints')
  return list(found)


def literal(value: str) -> Any:
  """Returns the value that a text spells, in JSON or in Python.

  Args:
    value: the text.

  Returns:
    Numbers, texts, lists, dicts and so on.

  Raises:
    ValueError: neither of both.
  """
  try:
    return json.loads(value)
  except (ValueError, RecursionError) as error:
    reason = error
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', SyntaxWarning)
      warnings.simplefilter('ignore', DeprecationWarning)
      return ast.literal_eval(value)
  except (
    *(ValueError, TypeError, SyntaxError, MemoryError, RecursionError),
  ) as error:
    raise ValueError(f'as JSON: {reason}; as Python: {error}') from error


def _joins_texts(value: str) -> bool:
  """Says whether a literal has texts side by side, which Python joins."""
  tokens = tokenize.generate_tokens(io.StringIO(value).readline)
  kinds = [t.type for t in tokens if t.type != tokenize.NL]
  return (tokenize.STRING, tokenize.STRING) in itertools.pairwise(kinds)
