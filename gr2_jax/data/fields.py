"""Turns the cells of a table into ids, times, lists and prices.

Each function takes the cell and the place it is from (`file:line`), and raises
a ValueError that names both and the remedy.
"""

import datetime
import json
import math
import numbers
from typing import Any

# A longer text is none; its tokens are cut to some dozens anyway.
LONGEST_TEXT = 2**20
# NUL and its like say nothing, and no page, terminal or JSON shows them: they
# count as spaces.
CONTROLS = dict.fromkeys([*range(0x20), 0x7F], ' ')


def identifier(value: Any, column: str, where: str) -> str:
  """Returns a non-empty id; whole numbers become text."""
  if isinstance(value, str) and value:
    _check_text(value, column, where)
    if value.translate(CONTROLS) != value:
      raise ValueError(
        f'{where}: {column} is {value[:80]!r}; ids hold no control characters: '
        'remove them.'
      )
    return value
  if isinstance(value, numbers.Integral) and not isinstance(value, bool):
    return str(value)
  raise ValueError(
    f'{where}: {column} is {value!r}; give a text that is not empty, or a '
    'whole number.'
  )


def text(value: Any, column: str, where: str) -> str:
  """Returns a text with single spaces and without control characters, '' for
  None.
  """
  if value is None:
    return ''
  if isinstance(value, str):
    _check_text(value, column, where)
    return ' '.join(value.translate(CONTROLS).split())
  raise ValueError(f'{where}: {column} is {value!r}; give a text.')


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

  Date-times of Parquet files become microseconds since 1970.

  Args:
    value: a whole number, as number or text, or a date-time.
    where: file and line.

  Returns:
    The time.

  Raises:
    ValueError: anything else.
  """
  if isinstance(value, datetime.datetime):
    zone = value.tzinfo or datetime.UTC
    since = value.replace(tzinfo=zone) - datetime.datetime(
      1970, 1, 1, tzinfo=datetime.UTC
    )
    return since // datetime.timedelta(microseconds=1)
  try:
    if isinstance(value, bool):
      raise ValueError
    number = int(value)
    if isinstance(value, numbers.Real) and number != value:
      raise ValueError
    if not -(2**63) <= number < 2**63:
      raise ValueError
  except (TypeError, ValueError, OverflowError):
    raise ValueError(
      f'{where}: timestamp is {value!r}; give a whole number of at most 64 '
      'bits, such as seconds since 1970.'
    ) from None
  return number


def strings(value: Any, column: str, where: str) -> tuple[str, ...]:
  """Returns a list of texts: a list, or texts with `|` between them."""
  if value is None or value == '':
    return ()
  if isinstance(value, str):
    value = value.split('|')
  if isinstance(value, (list, tuple)):
    found = [text(part, column, where) for part in value]
    return tuple(part for part in found if part)
  raise ValueError(
    f'{where}: {column} is {value!r}; give a list of texts, or one text with '
    '"|" between the parts.'
  )


def price(value: Any, where: str) -> float | None:
  """Returns a price of 0 or more; None for nothing and for not-a-number."""
  if value is None or value == '':
    return None
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = -1.0
  if math.isnan(number):
    return None
  if isinstance(value, bool) or not 0 <= number < math.inf:
    raise ValueError(
      f'{where}: price is {value!r}; give a number of 0 or more without a '
      'currency, or leave it empty.'
    )
  return number


def integers(value: Any, column: str, where: str) -> tuple[int, ...]:
  """Returns whole numbers of 0 or more: a list, or a text with `|` between."""
  try:
    if isinstance(value, str):
      value = [json.loads(part) for part in value.split('|')]
    found = tuple(value)
    if any(type(part) is not int or part < 0 for part in found):
      raise ValueError
  except (TypeError, ValueError, RecursionError):
    raise ValueError(
      f'{where}: {column} is {value!r}; give a list of whole numbers of 0 or '
      'more, or a text with "|" between them.'
    ) from None
  return found
