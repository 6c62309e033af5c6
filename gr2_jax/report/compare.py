"""What differs between two runs: their configs, and under it their results."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from gr2_jax import config as config_lib
from gr2_jax import files


def read(workdir: pathlib.Path) -> tuple[dict, dict]:
  """Reads a run.

  Args:
    workdir: directory of a run.

  Returns:
    (config, results); of a run that ended with its candidates the results are
    those of retrieval, and of one that did not come so far there are none.

  Raises:
    FileNotFoundError: the directory is not that of a run.
  """
  for name in ('report.json', 'retrieval.json'):
    if (workdir / name).exists():
      report = files.read_json(workdir / name)
      return report.pop('config'), report
  if (workdir / 'config.json').exists():
    return files.read_json(workdir / 'config.json'), {}
  raise FileNotFoundError(
    f'{workdir} holds neither report.json nor config.json: give the --workdir '
    'of launch.pipeline.'
  )


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
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '
    + '  '.join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
    for row in rows
  ]


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
    Lines: the settings that differ, then the results that do.

  Raises:
    FileNotFoundError: a directory is not that of a run.
  """
  (config_a, results_a), (config_b, results_b) = read(left), read(right)
  lines = [f'A = {left}', f'B = {right}', '', 'Config']
  lines += _differences(config_a, config_b, numbers=False)
  lines += ['', 'Results']
  missing = [
    str(directory)
    for directory, results in ((left, results_a), (right, results_b))
    if not results
  ]
  if missing:
    lines.append(
      f'  not evaluated yet: {", ".join(missing)} (run the stage evaluate)'
    )
  else:
    lines += _differences(results_a, results_b, numbers=True)
  return '\n'.join(lines)
