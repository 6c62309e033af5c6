"""Reads rows of CSV, JSON-lines and Parquet files, and says where each is from.

Every complaint names the file, the line and what to do.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from gr2_jax.data import delimited, fields, parquet, raw_files

FORMATS = ('.jsonl', '.csv', '.parquet')
Row = tuple[str, dict[str, Any]]


def rows(
  path: pathlib.Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[Row]:
  """Yields the rows of a table.

  Args:
    path: a file whose name ends in .jsonl, .csv or .parquet; the first two may
      be followed by .gz, the last may be a folder of parts.
    required: columns that must be there.
    optional: columns that are read where they are there. Rows of CSV and JSON
      hold the others, too.

  Yields:
    ('file:line', {column: value}); Parquet files count rows from 1.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: another format, a missing or repeated column, a row that does
      not parse, or no rows at all.
  """
  kind = (path.with_suffix('') if path.suffix == '.gz' else path).suffix
  if kind == '.csv':
    found = delimited.rows(path, required)
  elif kind == '.jsonl':
    found = json_lines(path, required)
  elif kind == '.parquet':
    found = parquet.rows(path, required, optional)
  else:
    raise ValueError(f'{path}: unknown format; use one of {FORMATS}.')
  first = next(found, None)
  if first is None:
    raise ValueError(f'{path}: no rows; give the file at least one.')
  yield from itertools.chain([first], found)


def json_lines(path: pathlib.Path, required: Sequence[str]) -> Iterator[Row]:
  """Yields the objects of a JSON-lines file; see `rows`."""
  for number, line in enumerate(raw_files.lines(path), 1):
    where = f'{path}:{number}'
    if not line.strip():
      continue
    bare = line.strip()
    if bare in '{[' or (bare[0] == '[' and bare[-1] != ']'):
      raise ValueError(
        f'{where}: {fields.shown(bare)} begins a JSON value over several '
        'lines; write one object a line (JSON Lines, in pandas lines=True).'
      )
    row = raw_files.parse(line, where)
    if not isinstance(row, dict):
      raise ValueError(
        f'{where}: {fields.shown(row)} is no JSON object; write one object a '
        f'line, with the keys {list(required)}.'
      )
    raw_files.require(row, required, where)
    yield where, row
