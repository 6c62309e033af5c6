"""Columns that lists carry: numbers of one's own for each candidate.

A list has them as an object, `{"ctr": [0.12, 0.3], "age": [3, 40]}`: by name
one finite number a candidate, in the order of the candidates. All lists of a
run have the same names. Numbers are kept as 32-bit floats.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from gr2_jax.data import fields, literals

KEY = 'features'
# Columns that a run computes by itself (`rank.evidence`).
RESERVED = ('score', 'log_rank', 'popularity', 'content', 'follow', 'sasrec')


def names(value: Any, where: str) -> tuple[str, ...]:
  """Returns the names of a list's columns, in their order.

  Args:
    value: the cell: an object of lists, the same as text (JSON or Python), or
      nothing.
    where: file and line.

  Returns:
    E names; none where the list brings no columns.

  Raises:
    ValueError: no such object, or a name that a run's own columns have.
  """
  found = _object(value, where)
  for name in found:
    fields.identifier(name, f'a name in {KEY}', where)
    if name in RESERVED:
      raise ValueError(
        f'{where}: {KEY} has the column {name!r}, which every run computes by '
        f'itself ({", ".join(RESERVED)}): rename yours.'
      )
  return tuple(found)


def rows(
  value: Any, expected: Sequence[str], count: int, where: str, source: str
) -> tuple[tuple[float, ...], ...]:
  """Returns the columns of one list.

  Args:
    value: the cell, as of `names`.
    expected: the E names that it must have, in any order.
    count: k, its number of candidates.
    where: file and line.
    source: what has those names, for messages.

  Returns:
    E tuples of k numbers, in the order of `expected`.

  Raises:
    ValueError: other names, another number of values than k, or a value that is
      no finite number of 32 bits.
  """
  found = _object(value, where)
  if found.keys() != set(expected):
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    remedy = f'give every list the columns {list(expected)}'
    raise ValueError(
      f'{where}: {KEY} lacks the columns {missing} and has {unknown}, which '
      f'{source} does not have: {remedy if expected else "leave them out"}.'
    )
  return tuple(
    floats(found[name], count, f'{KEY}[{name!r}]', where) for name in expected
  )


def floats(
  value: Any, count: int, column: str, where: str
) -> tuple[float, ...]:
  """Returns one finite number a candidate, as 32 bits hold it.

  Args:
    value: a list of numbers.
    count: k, how many there must be.
    column: what they are, for messages.
    where: file and line.

  Returns:
    k numbers.

  Raises:
    ValueError: anything else.
  """
  if not isinstance(value, (list, tuple)):
    raise ValueError(
      f'{where}: {column} is {fields.shown(value)}; give a list of numbers, '
      'one for each candidate.'
    )
  if len(value) != count:
    raise ValueError(
      f'{where}: {column} has {len(value)} numbers for {count} candidates; '
      'give one for each.'
    )
  found = []
  for place, number in enumerate(value):
    kept = _float32(number)
    if not math.isfinite(kept):
      raise ValueError(
        f'{where}: {column} is {number!r} at place {place}; give finite '
        'numbers that fit 32 bits.'
      )
    found.append(kept)
  return tuple(found)


def _float32(number: Any) -> float:
  """Rounds a number to 32 bits; not a number or too large: not finite."""
  if isinstance(number, bool) or not isinstance(number, numbers.Real):
    return math.nan
  try:
    with np.errstate(over='ignore'):
      return float(np.float32(float(number)))
  except OverflowError:
    return math.inf


def _object(value: Any, where: str) -> dict[str, Any]:
  if fields.is_missing(value) or value == '':
    return {}
  found = value
  if isinstance(value, str):
    try:
      found = literals.literal(value)
    except ValueError:
      found = None
  if not isinstance(found, dict):
    raise ValueError(
      f'{where}: {KEY} is {fields.shown(value)}; give an object with a list of '
      'numbers by name, such as {"ctr": [0.12, 0.3]}.'
    )
  return found
