"""Numbers looked up in JSON files by their paths, and written as text.

Below `results` of a benchmark's file stands a key for each name, or
`NAME beside PEER` where several have one name; below `runs` of a sweep's file a
key for each run, with the values of all its seeds by column, and of a column
with lists by column and entry.
"""

import math
import pathlib
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gr2_jax import files

_NUMBER = re.compile(r'\{([^{}]*)\}')
_SCALES = {'': 1, 'percent': 100, 'ms': 1e3, 'GiB': 2**-30}


class Values:
  """The numbers in the JSON files of a folder, each read once."""

  def __init__(self, folder: pathlib.Path):
    """Reads nothing yet.

    Args:
      folder: of the files.
    """
    self._folder = folder
    self._documents: dict[str, Any] = {}

  def get(self, path: str) -> Any:
    """Returns what stands at `FILE/KEY/KEY..`; of a list, keys are indices.

    Args:
      path: the file and its keys.

    Raises:
      ValueError: there is no such file or key, with the keys that there are.
    """
    name, *keys = path.split('/')
    if name not in self._documents:
      self._documents[name] = self._read(name)
    found = self._documents[name]
    for i, key in enumerate(keys):
      entries = found
      if isinstance(found, list):
        entries = {str(index): entry for index, entry in enumerate(found)}
      if not isinstance(entries, dict) or key not in entries:
        has = sorted(entries) if isinstance(entries, dict) else [entries]
        raise ValueError(
          f'{name} has no {"/".join(keys[: i + 1])!r}; there is '
          f'{", ".join(map(str, has)) or "nothing"}.'
        )
      found = entries[key]
    return found

  def _read(self, name: str) -> Any:
    path = self._folder / name
    if not name.endswith('.json') or not path.is_file():
      raise ValueError(f'There is no file {name!r} in {self._folder}.')
    document = files.read_json(path)
    if isinstance(document, dict):
      for key, change in (('results', _by_name), ('runs', _by_run)):
        if isinstance(document.get(key), list):
          document[key] = change(document[key])
    return document


def _by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Gives the rows of a benchmark keys: names, or `NAME beside PEER`."""
  names = [row['name'] for row in rows]
  return {
    row['name']
    if names.count(row['name']) == 1
    else f'{row["name"]} beside {row["peer"]}': row
    for row in rows
  }


def _by_run(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Collects the results of a sweep: run to column to values by seed."""
  found: dict[str, dict[str, list]] = {}
  for run in runs:
    columns = found.setdefault(run['name'], {})
    for column, value in run['results'].items():
      if isinstance(value, list):
        entries = columns.setdefault(column, [[] for _ in value])
        for entry, number in zip(entries, value, strict=True):
          entry.append(number)
      else:
        columns.setdefault(column, []).append(value)
  return found


def show(value: Any, how: str) -> str:
  """Writes a value.

  Args:
    value: a number, or a list of them.
    how: a format of Python's for each number, such as `.3f`. Before it a word:
      `percent`, `ms` or `GiB` scales it; of lists, `pair` is `mean ±deviation`,
      `interval` is `value [low, high]`, `range` is `[low, high]`, `each` is
      `a / b`, `and` is `a, b and c`; of values by seed, or a list of such,
      `mean` and `deviation` are theirs, and `spread` is `mean ±deviation`. A
      list without a word has blanks between its numbers.

  Raises:
    ValueError: a value that cannot be shown so.
  """
  word, _, digits = how.rpartition(' ')
  if word not in _SCALES and word not in _WORDS:
    raise ValueError(
      f'{how!r} has no known word before the format; those are '
      f'{", ".join(filter(None, [*_SCALES, *_WORDS]))}.'
    )
  try:
    if word in _SCALES:
      return _plain(value, digits, _SCALES[word])
    return _WORDS[word](value, digits)
  except (TypeError, ValueError, statistics.StatisticsError):
    raise ValueError(f'{value!r} cannot be shown as {how!r}.') from None


def _plain(value: Any, digits: str, scale: float = 1) -> str:
  if isinstance(value, list):
    return ' '.join(_plain(entry, digits, scale) for entry in value)
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise TypeError(value)
  if not math.isfinite(value):
    raise ValueError(value)
  return format(value * scale, digits)


def _shown(value: Any, digits: str, n: int = 0) -> list[str]:
  if not isinstance(value, list) or len(value) != (n or len(value)):
    raise TypeError(value)
  return [_plain(entry, digits) for entry in value]


def _pair(value: Any, digits: str) -> str:
  return ' ±'.join(_shown(value, digits, 2))


def _interval(value: Any, digits: str) -> str:
  middle, low, high = _shown(value, digits, 3)
  return f'{middle} [{low}, {high}]'


def _range(value: Any, digits: str) -> str:
  return f'[{", ".join(_shown(value, digits, 2))}]'


def _each(value: Any, digits: str) -> str:
  return ' / '.join(_shown(value, digits))


def _and(value: Any, digits: str) -> str:
  *first, last = _shown(value, digits)
  return ' and '.join([', '.join(first), last] if first else [last])


def _over_seeds(measure: Callable[[list], float], values: Any) -> Any:
  """Measures values by seed; of lists, entry by entry."""
  if not isinstance(values, list) or not values:
    raise TypeError(values)
  if isinstance(values[0], list):
    return [measure(entry) for entry in values]
  return measure(values)


def _mean(values: Any, digits: str) -> str:
  return _plain(_over_seeds(statistics.fmean, values), digits)


def _deviation(values: Any, digits: str) -> str:
  return _plain(_over_seeds(statistics.stdev, values), digits)


def _spread(values: Any, digits: str) -> str:
  return f'{_mean(values, digits)} ±{_deviation(values, digits)}'


_WORDS = {
  'pair': _pair,
  'interval': _interval,
  'range': _range,
  'each': _each,
  'and': _and,
  'mean': _mean,
  'deviation': _deviation,
  'spread': _spread,
}


def fill(template: str, at: str, values: Values) -> str:
  """Puts numbers in the place of each `{PATH:HOW}`.

  Args:
    template: the text around them.
    at: where the paths start, but for those that begin with `/`.
    values: has the numbers.

  Raises:
    ValueError: a number that is not there, or cannot be shown so.
  """

  def number(match: re.Match) -> str:
    given, _, how = match[1].rpartition(':')
    if not given:
      raise ValueError(f'{match[0]} is no {{PATH:HOW}}.')
    path = join(at, given)
    value = values.get(path)
    try:
      return show(value, how)
    except ValueError as error:
      raise ValueError(f'{path}: {error}') from None

  return _NUMBER.sub(number, template)


def join(at: str, path: str) -> str:
  """Returns a path below another, or from the top if it begins with `/`.

  Args:
    at: the other; empty for the top.
    path: what is below it.
  """
  if path.startswith('/'):
    return path[1:]
  return '/'.join(filter(None, (at, path)))
