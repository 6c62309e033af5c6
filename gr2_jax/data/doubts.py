"""Finds rows that are well-formed but probably wrong.

Nothing of this shows in one row, so it is asked of a data set as a whole: times
in two units, which would be in a wrong order, and ids that look alike, which
would make two users of one.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from absl import logging

from gr2_jax.data import dataset as dataset_lib

# 1973 and 2286 in seconds since 1970; in milliseconds a thousand times as much,
# and so on.
_LIMITS = 10**8, 10**10
_UNITS = ('seconds', 'milliseconds', 'microseconds', 'nanoseconds')
# What programs write for a value that is missing.
MISSING = frozenset(
  ('nan', 'NaN', 'NAN', 'None', 'null', 'NULL', '<NA>', 'NaT', 'N/A')
)
# As spreadsheets show and save long numbers.
_ROUNDED = re.compile(r'\d(\.\d+)?[eE]\+\d+')
# What stands between the parts of a path, where it is not `|`.
_BETWEEN = re.compile('[,;>]')


def units(times: np.ndarray) -> dict[str, int]:
  """Counts times by the unit that their size tells.

  Args:
    times: int64 [n].

  Returns:
    'seconds' and so on -> how many times are from 1973 to 2286 in it;
    'between' -> how many are above these of one and below these of the next.
  """
  ends = [limit * 1000**k for k in range(len(_UNITS)) for limit in _LIMITS]
  # Place 2k + 1 is the range of unit k, 2k + 2 the gap behind it.
  places = np.bincount(
    np.searchsorted(ends, times, side='right'), minlength=len(ends) + 1
  )
  found = {unit: int(places[2 * k + 1]) for k, unit in enumerate(_UNITS)}
  return {**found, 'between': int(places[2 : len(ends) : 2].sum())}


def check_units(found: Mapping[str, int], name: str) -> None:
  """Refuses times of which some are in seconds, others in milliseconds.

  Numbers without a unit, as places in a sequence, are not as large as these, or
  have no gap between small and large ones.

  Args:
    found: sums of `units`.
    name: of the data set, for messages.

  Raises:
    ValueError: two units.
  """
  used = [unit for unit in _UNITS if found[unit]]
  if len(used) > 1 and not found['between']:
    told = ', '.join(f'{found[unit]} in {unit}' for unit in used)
    raise ValueError(
      f'Data set {name!r}: the times look as if they were in more than one '
      f'unit: {told} since 1970; write all in one, or their order is lost.'
    )


def warn_of_small(times: np.ndarray, name: str) -> None:
  """Warns of a few times before 1973 where all others are later.

  Zeros stand for unknown times, and the last time of a file that was cut off
  has lost digits; both would come first in their user's sequence.

  Args:
    times: int64 [n].
    name: of the data set.
  """
  small = times[times < _LIMITS[0]]
  if 0 < 20 * len(small) <= len(times):
    logging.warning(
      'Data set %r: %d of %d times are before 1973, the least is %d, and all '
      'others later: where they stand for missing ones, or a file was cut off '
      'in its last row, remove these rows or fetch the file again.',
      *(name, len(small), len(times), small.min()),
    )


def check_ids(ids: Iterable[str], column: str, name: str) -> None:
  """Refuses ids that look alike or were rounded; warns of "missing".

  Args:
    ids: distinct ids.
    column: what they are.
    name: of the data set.

  Raises:
    ValueError: two ids that differ by blanks, or by how an accent is encoded,
      with both; or an id such as 1.7E+12, which several may have become.
  """
  bare: dict[str, str] = {}
  for found in ids:
    other = bare.setdefault(_seen(found), found)
    if other != found:
      raise ValueError(
        f'Data set {name!r}: {column} is {other!a} in some rows and {found!a} '
        'in others, which look alike; write both in one way.'
      )
    if _ROUNDED.fullmatch(found):
      raise ValueError(
        f'Data set {name!r}: one {column} is {found!r}, a number that a '
        'spreadsheet has rounded: several ids may have become this one. Write '
        'all digits, as text.'
      )
    if found in MISSING:
      logging.warning(
        'Data set %r: one %s is %r: where this stands for a missing one, '
        'remove its rows.',
        *(name, column, found),
      )


def _seen(found: str) -> str:
  """Returns an id as a reader sees it."""
  if found.isascii():
    return found.strip()
  found = unicodedata.normalize('NFC', found)
  return found.replace('\u200b', '').replace('\ufeff', '').strip()


def warn_of_texts(items: Sequence[dataset_lib.Item], name: str) -> None:
  """Warns of missing titles and categories that are spelled out.

  And of paths of categories that were not taken apart.

  Args:
    items: the items.
    name: of the data set.
  """
  found = [item for item in items if MISSING & {item.title, *item.categories}]
  if found:
    logging.warning(
      'Data set %r: %d items have a title or a category such as "nan" or '
      '"None", which are taken as they are; leave the fields empty where they '
      'are missing. The first is %r.',
      *(name, len(found), found[0].item_id),
    )
  filed = [item for item in items if item.categories]
  whole = [item for item in filed if _BETWEEN.search(item.categories[0])]
  if 2 * len(whole) > len(filed) and all(len(i.categories) == 1 for i in filed):
    logging.warning(
      'Data set %r: items have one category at most, and %d of %d of these '
      'look like a path, such as %r: where they are, write lists, or "|" '
      'between the parts.',
      *(name, len(whole), len(filed), whole[0].categories[0]),
    )
