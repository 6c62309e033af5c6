"""Turns the cells of a table into ids, times, lists and prices.

Each function takes the cell and the place it is from (`file:line`), and raises
a ValueError that names both and the remedy.
"""

import ast
import decimal
import io
import itertools
import json
import math
import numbers
import tokenize
import warnings
from collections.abc import Iterable
from typing import Any

# A longer text is none; its tokens are cut to some dozens anyway.
LONGEST_TEXT = 2**20
# Beyond it floats skip whole numbers.
_EXACT = 2**53
# A longer number is none.
_LONGEST_NUMBER = 64
# NUL and its like say nothing, and no page, terminal or JSON shows them: they
# count as spaces.
CONTROLS = dict.fromkeys([*range(0x20), 0x7F], ' ')


def shown(value: Any) -> str:
  """Returns a cell as messages show it: its first 80 characters."""
  found = repr(value)
  return found if len(found) <= 80 else f'{found[:80]}...'


def identifier(value: Any, column: str, where: str) -> str:
  """Returns a non-empty id; whole numbers become text."""
  if isinstance(value, str) and value:
    _check_text(value, column, where)
    if value.translate(CONTROLS) != value:
      raise ValueError(
        f'{where}: {column} is {shown(value)}; ids hold no control characters: '
        'remove them.'
      )
    return value
  number = None if isinstance(value, (str, float)) else _whole(value)
  if number is not None:
    return str(number)
  raise ValueError(
    f'{where}: {column} is {shown(value)}; give a text that is not empty, or a '
    'whole number.'
  )


def identifiers(value: Any, column: str, where: str) -> tuple[str, ...]:
  """Returns ids: a list, also as text, or a text with `|` between them."""
  found = _parts(value, column, where)
  return tuple(identifier(part, column, where) for part in found)


def repeated(ids: Iterable[str]) -> str | None:
  """Returns the first id that stands a second time; None if none does."""
  seen = set()
  for each in ids:
    if each in seen:
      return each
    seen.add(each)
  return None


def text(value: Any, column: str, where: str) -> str:
  """Returns a text with single spaces and without control characters, '' for
  None and for not-a-number, which is how tables write what is missing.
  """
  if is_missing(value):
    return ''
  if isinstance(value, str):
    _check_text(value, column, where)
    return ' '.join(value.translate(CONTROLS).split())
  raise ValueError(f'{where}: {column} is {shown(value)}; give a text.')


def is_missing(value: Any) -> bool:
  """Says whether a cell is None or not-a-number."""
  return value is None or (isinstance(value, float) and math.isnan(value))


def _check_text(value: str, column: str, where: str) -> None:
  if len(value) > LONGEST_TEXT:
    raise ValueError(
      f'{where}: {column} has {len(value):,} characters, more than '
      f'{LONGEST_TEXT:,}; shorten it.'
    )
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f'{where}: {column} has half a character (a lone surrogate, '
      f'\\u{ord(value[error.start]):04x}) at place {error.start + 1}; mend its '
      'encoding.'
    ) from error


def timestamp(value: Any, where: str) -> int:
  """Returns a time as a whole number, in the source's unit.

  What could change the order of times is refused: fractions, floats above
  2**53, and texts such as 1.7E+09 that keep the first digits only.

  Args:
    value: a whole number, as number or text.
    where: file and line.

  Returns:
    The time.

  Raises:
    ValueError: anything else.
  """
  number = _whole(value)
  if number is None or not -(2**63) <= number < 2**63:
    raise ValueError(
      f'{where}: timestamp is {shown(value)}; give a whole number of at most '
      '64 bits with all its digits, such as seconds since 1970 (where there '
      'are fractions of a second: milliseconds).'
    )
  return number


def _whole(value: Any) -> int | None:
  """Returns what is a whole number, every digit of it given; else None."""
  if isinstance(value, bool):
    return None
  if isinstance(value, numbers.Integral):
    return int(value)
  if isinstance(value, float):
    exact = value.is_integer() and abs(value) <= _EXACT
    return int(value) if exact else None
  if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
    if value.isdecimal():
      return int(value)
    try:
      value = decimal.Decimal(value.strip())
    except decimal.InvalidOperation:
      return None
  if isinstance(value, decimal.Decimal) and value.is_finite():
    # 1.7E+09 has the exponent 8: eight digits that are not given.
    if value.as_tuple().exponent <= 0 and int(value) == value:
      return int(value)
  return None


def strings(value: Any, column: str, where: str) -> tuple[str, ...]:
  """Returns texts: a list, also as text, or a text with `|` between them.

  Args:
    value: the cell. A text in brackets is a list of Python or JSON, as tables
      of lists become in CSV: `['Beauty', 'Bath']`, `["Beauty", "Bath"]`.
    column: what it is, for messages.
    where: file and line.

  Returns:
    The texts that are not empty.

  Raises:
    ValueError: anything else.
  """
  found = [text(part, column, where) for part in _parts(value, column, where)]
  return tuple(part for part in found if part)


def _parts(value: Any, column: str, where: str) -> list[Any]:
  """Returns the parts of a cell that holds several."""
  if is_missing(value) or value == '':
    return []
  if isinstance(value, (list, tuple)):
    return list(value)
  if not isinstance(value, str):
    raise ValueError(
      f'{where}: {column} is {shown(value)}; give a list of texts, or one text '
      'with "|" between the parts.'
    )
  _check_text(value, column, where)
  bare = value.strip()
  if not _looks_like_a_list(bare):
    return [part.strip() for part in value.split('|')]
  try:
    found = literal(bare)
    if not isinstance(found, (list, tuple)):
      raise ValueError(f'it is a {type(found).__name__}')
    if _joins_texts(bare):
      raise ValueError('texts without a comma between them, as NumPy prints')
  except ValueError as error:
    raise ValueError(
      f'{where}: {column} is {shown(value)}, which looks like a list but is '
      f'none of JSON or Python ({error}); write ["a", "b"], or a|b.'
    ) from error
  return list(found)


def _looks_like_a_list(value: str) -> bool:
  """Says whether a text is in brackets; (so) is, with quotes alone."""
  pair = value[:1] + value[-1:]
  return pair in ('[]', '{}') or (pair == '()' and value[1:2] in ('"', "'"))


def literal(value: str) -> Any:
  """Returns the value that a text spells, in JSON or in Python.

  Args:
    value: the text; nothing of it is run.

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


def price(value: Any, where: str) -> float | None:
  """Returns a price of 0 or more; None for nothing and for not-a-number."""
  if is_missing(value) or value == '':
    return None
  try:
    number = float(value)
  except (TypeError, ValueError, OverflowError):
    number = -1.0
  if math.isnan(number):
    return None
  if isinstance(value, bool) or not 0 <= number < math.inf:
    raise ValueError(
      f'{where}: price is {shown(value)}; give a number of 0 or more without a '
      'currency, or leave it empty.'
    )
  return number


def integers(value: Any, column: str, where: str) -> tuple[int, ...]:
  """Returns whole numbers of 0 or more: a list, also as text, or a text with
  `|` between them.
  """
  try:
    found = [
      json.loads(part) if isinstance(part, str) else part
      for part in _parts(value, column, where)
    ]
  except (ValueError, RecursionError):
    found = [None]
  if any(type(part) is not int or part < 0 for part in found):
    raise ValueError(
      f'{where}: {column} is {shown(value)}; give a list of whole numbers of 0 '
      'or more, or a text with "|" between them.'
    )
  return tuple(found)
