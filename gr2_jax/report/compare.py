"""What differs between two runs: their results, and under it their configs."""

import os.path
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gr2_jax import config as config_lib
from gr2_jax import files

WIDTH = 100
# Between columns, and the least of a value that is shown.
_GAP, _LEAST = 2, 14


class Run(NamedTuple):
  """What a run's directory holds.

  Attributes:
    config: of the last call.
    report: its results, None until it is evaluated.
    retrieval: those of its candidates, None until there are any.
  """

  config: dict
  report: dict | None
  retrieval: dict | None


def read(workdir: pathlib.Path) -> Run:
  """Reads a run.

  Args:
    workdir: directory of a run.

  Returns:
    The run.

  Raises:
    FileNotFoundError: the directory is not that of a run.
  """
  found = [
    files.read_json(workdir / name) if (workdir / name).exists() else None
    for name in ('config.json', 'report.json', 'retrieval.json')
  ]
  config, *results = found
  for result in filter(None, results):
    own = result.pop('config')
    # Their numbers in words.
    result.pop('verdict', None)
    result.pop('warnings', None)
    config = own if config is None else config
  if config is None:
    raise FileNotFoundError(
      f'{workdir} holds neither report.json nor config.json: give the '
      '--workdir of launch.pipeline.'
    )
  return Run(config, *results)


def _text(value: Any) -> str:
  if value is None:
    return '-'
  if isinstance(value, float):
    return (
      f'{value:.4f}'
      if 1e-3 <= abs(value) < 1e4 or not value
      else f'{value:.3g}'
    )
  if isinstance(value, list):
    return '[' + ', '.join(map(_text, value)) + ']'
  return str(value)


def _change(left: Any, right: Any) -> str:
  numbers = (int, float)
  if isinstance(left, numbers) and isinstance(right, numbers):
    return f'{right - left:+.4g}'
  return ''


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
  """Lays out (name, A, B, change) within `WIDTH`; what is long is cut."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  room = WIDTH - 4 * _GAP - widths[3]
  short = [min(width, _LEAST) for width in widths[1:3]]
  widths[0] = min(widths[0], room - sum(short))
  # A column that needs less than its half leaves the rest to the other one.
  room -= widths[0]
  least = min(widths[1], widths[2], -(-room // 2))
  widths[1], widths[2] = (min(w, room - least) for w in widths[1:3])
  lines = []
  for name, *pair, change in rows:
    cells = [_end(name, widths[0]), *_cut_pair(pair, widths[1:3]), change]
    cells = [c.ljust(w) for c, w in zip(cells, widths, strict=True)]
    lines.append(' ' * _GAP + (' ' * _GAP).join(cells).rstrip())
  return lines


def _end(name: str, width: int) -> str:
  return name if len(name) <= width else '…' + name[1 - width :]


def _cut_pair(pair: Sequence[str], widths: Sequence[int]) -> list[str]:
  """Cuts two texts that differ so that the first difference is seen."""
  if all(len(t) <= w for t, w in zip(pair, widths, strict=True)):
    return list(pair)
  same = len(os.path.commonprefix(list(pair)))
  begin = same - min(widths) // 4 if same > min(widths) // 2 else 0
  found = []
  for text, width in zip(pair, widths, strict=True):
    text = '…' + text[begin:] if begin else text
    found.append(text if len(text) <= width else text[: width - 1] + '…')
  return found


def _differences(left: Mapping, right: Mapping, numbers: bool) -> list[str]:
  found = config_lib.diff(left, right)
  if not found:
    return ['  no difference']
  rows = [
    [name, _text(a), _text(b), _change(a, b) if numbers else '']
    for name, a, b in found
  ]
  head = ['', 'A', 'B', 'B - A' if numbers else '']
  return _columns([head, *rows])


def differences(left: pathlib.Path, right: pathlib.Path) -> str:
  """Lays out how two runs differ.

  Args:
    left: directory of run A.
    right: directory of run B.

  Returns:
    Lines of at most `WIDTH` characters, but for the directories: the results
    that differ, then the settings that do; of two runs that both ended with
    their candidates, the results of retrieval.

  Raises:
    FileNotFoundError: a directory is not that of a run.
  """
  runs = {left: read(left), right: read(right)}
  one, other = (runs[directory] for directory in (left, right))
  lines = [f'A = {left}', f'B = {right}', '', 'Results']
  ended = one.report is None and other.report is None
  if ended and one.retrieval is not None and other.retrieval is not None:
    lines += _differences(one.retrieval, other.retrieval, numbers=True)
  elif one.report is not None and other.report is not None:
    lines += _differences(one.report, other.report, numbers=True)
  else:
    missing = [str(path) for path, run in runs.items() if run.report is None]
    lines += [f'  not evaluated yet: {path}' for path in missing]
    lines.append('  (run the stage evaluate)')
  lines += ['', 'Config']
  lines += _differences(one.config, other.config, numbers=False)
  return '\n'.join(lines)
