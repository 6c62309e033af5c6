"""Turns the cells of a table into ids, times, lists and prices.

Each function takes the cell and the place it is from (`file:line`), and raises
a ValueError that names both and the remedy.
"""

import datetime
import decimal
import html
import json
import math
import numbers
from collections.abc import Iterable
from typing import Any

from gr2_jax.data import literals

# A longer text is none; its tokens are cut to some dozens anyway.
LONGEST_TEXT = 2**20
# Beyond it floats skip whole numbers.
_EXACT = 2**53
# A longer number is none.
_LONGEST_NUMBER = 64
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
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


def repeated(names: Iterable[str]) -> str | None:
  """Returns the first name that stands a second time; None if none does."""
  seen = set()
  for each in names:
    if each in seen:
      return each
    seen.add(each)
  return None


def text(value: Any, column: str, where: str) -> str:
  """Returns a text with single spaces and without control characters.

  It is '' for None and not-a-number, which is how tables write what is missing.
  """
  if is_missing(value):
    return ''
  if isinstance(value, str):
    _check_text(value, column, where)
    return ' '.join(value.translate(CONTROLS).split())
  raise ValueError(f'{where}: {column} is {shown(value)}; give a text.')


def prose(value: Any, column: str, where: str) -> str:
  """Returns a longer text: one, or a list of its parts, which may be text.

  Args:
    value: the cell. Amazon's metadata have lists since 2018, and tables made of
      them spell these out: `['Made of mint.', 'Fresh.']`. What is in brackets
      and no list of texts is a text as any other.
    column: what it is, for messages.
    where: file and line.

  Returns:
    The parts that are not empty, with a space between; single spaces.

  Raises:
    ValueError: anything else.
  """
  parts = value if isinstance(value, (list, tuple)) else [value]
  bare = value.strip() if isinstance(value, str) else ''
  if len(bare) <= LONGEST_TEXT and literals.looks_like_a_list(bare):
    try:
      found = literals.listed(bare)
    except ValueError:
      return text(value, column, where)
    if all(part is None or isinstance(part, str) for part in found):
      parts = found
  return ' '.join(filter(None, (text(part, column, where) for part in parts)))


def unescaped(value: str) -> str:
  """Resolves entities of HTML; what they spell is a text as any other."""
  return ' '.join(html.unescape(value).translate(CONTROLS).split())


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
      f'\\u{ord(value[error.start]):04x}) at place {error.start + 1}; fix its '
      'encoding.'
    ) from error


def timestamp(value: Any, where: str) -> int:
  """Returns a time as a whole number, in the source's unit.

  What could change the order of times is refused: fractions, floats above
  2**53, and texts such as 1.7E+09 that keep the first digits only.

  Args:
    value: a whole number, as number or text; or a date, or a date and a time,
      as ISO 8601 writes them: 2023-01-31 12:00:00.
    where: file and line.

  Returns:
    The time; of dates microseconds since 1970, those without a zone taken as
    UTC, as of Parquet (`parquet.py`).

  Raises:
    ValueError: anything else.
  """
  number = _whole(value)
  if number is None and isinstance(value, str):
    number = _microseconds(value.strip())
  if number is None or not -(2**63) <= number < 2**63:
    raise ValueError(
      f'{where}: timestamp is {shown(value)}; give a whole number of at most '
      '64 bits with all its digits, such as seconds since 1970 (where there '
      'are fractions of a second: milliseconds), or a date such as 2023-01-31 '
      '12:00:00.'
    )
  return number


def _microseconds(value: str) -> int | None:
  """Returns a date in microseconds since 1970, or None."""
  # Dates in digits alone are numbers.
  if value[4:5] != '-' or len(value) > _LONGEST_NUMBER:
    return None
  try:
    found = datetime.datetime.fromisoformat(value)
  except ValueError:
    return None
  if found.tzinfo is None:
    found = found.replace(tzinfo=datetime.UTC)
  return (found - _EPOCH) // datetime.timedelta(microseconds=1)


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
  if not literals.looks_like_a_list(bare):
    return [part.strip() for part in value.split('|')]
  try:
    return literals.listed(bare)
  except ValueError as error:
    raise ValueError(
      f'{where}: {column} is {shown(value)}, which looks like a list but is '
      f'none of JSON or Python ({error}); write ["a", "b"], or a|b.'
    ) from error


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
  """Returns whole numbers of 0 or more.

  They are a list, also as text, or a text with `|` between them.
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
