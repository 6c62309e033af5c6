"""Reads rows of CSV, JSON-lines and Parquet files, and says where each is from.

Every complaint names the file, the line and what to do.
"""

import csv
import gzip
import io
import itertools
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from gr2_jax import progress

FORMATS = ('.jsonl', '.csv', '.parquet')
Row = tuple[str, dict[str, Any]]
# In characters; a longer line is no row but a file that is not what it seems,
# and would fill the memory.
LONGEST_LINE = 2**24


def lines(path: pathlib.Path) -> Iterator[str]:
  """Yields the lines of a UTF-8 text file, gunzipped where it ends in `.gz`.

  Args:
    path: the file.

  Yields:
    Lines without their line break.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: not UTF-8, a line of more than `LONGEST_LINE` characters, a
      broken archive, or nothing in the file.
  """
  if not path.exists():
    raise FileNotFoundError(f'{path}: no such file; check the path in config.')
  number = 0
  with (
    path.open('rb') as raw,
    progress.bar(
      total=path.stat().st_size, desc=f'read {path.name}', unit='B'
    ) as bar,
  ):
    unzipped = gzip.open(raw) if path.suffix == '.gz' else raw
    try:
      # Bytes that are not UTF-8 come as surrogates, whose line is then known.
      stream = io.TextIOWrapper(
        unzipped, 'utf-8-sig', 'surrogateescape', newline=''
      )
      found = iter(lambda: stream.readline(LONGEST_LINE + 1), '')
      for number, line in enumerate(found, 1):
        _check_line(line, f'{path}:{number}')
        if number % 4096 == 0:
          bar.update(raw.tell() - bar.n)
        yield line.rstrip('\r\n')
    except (EOFError, zlib.error, OSError) as error:
      raise ValueError(
        f'{path}:{number + 1}: cannot be read ({error}); fetch it again, '
        'the file is cut off or no archive.'
      ) from error
    bar.update(path.stat().st_size - bar.n)
  if not number:
    raise ValueError(f'{path}: the file is empty; give it at least one row.')


def _check_line(line: str, where: str) -> None:
  if len(line) > LONGEST_LINE:
    raise ValueError(
      f'{where}: a line of more than {LONGEST_LINE:,} characters; mend or '
      'remove it.'
    )
  if line.isascii():
    return
  try:
    line.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f'{where}: byte 0x{ord(line[error.start]) & 0xFF:02x} at character '
      f'{error.start + 1} is not UTF-8; save the file as UTF-8.'
    ) from error


def rows(path: pathlib.Path, required: Sequence[str]) -> Iterator[Row]:
  """Yields the rows of a table.

  Args:
    path: a file whose name ends in .jsonl, .csv or .parquet; the first two may
      be followed by .gz.
    required: columns that must be there; others may be.

  Yields:
    ('file:line', {column: value}); Parquet files count rows from 1.

  Raises:
    ValueError: another format, a missing column, a row that does not parse, or
      no rows at all.
  """
  kind = (path.with_suffix('') if path.suffix == '.gz' else path).suffix
  if kind == '.csv':
    found = _csv_rows(path, required)
  elif kind == '.jsonl':
    found = json_lines(path, required)
  elif kind == '.parquet':
    found = _parquet_rows(path, required)
  else:
    raise ValueError(f'{path}: unknown format; use one of {FORMATS}.')
  first = next(found, None)
  if first is None:
    raise ValueError(f'{path}: no rows; give the file at least one.')
  yield from itertools.chain([first], found)


def delimited(
  path: pathlib.Path, required: Sequence[str], **dialect: Any
) -> Iterator[Row]:
  """Yields the rows of a delimited file with a header line.

  Args:
    path: the file.
    required: columns that the header must name.
    **dialect: what `csv.reader` takes, e.g. `delimiter`.

  Yields:
    ('file:line', {column: text}).

  Raises:
    ValueError: a missing column, a row that does not parse.
  """
  # csv wants line breaks inside quoted fields, so they are put back.
  reader = csv.reader(
    (f'{line}\n' for line in lines(path)), strict=True, **dialect
  )
  try:
    header = next(reader)
    _require(header, required, f'{path}:1')
    for row in reader:
      where = f'{path}:{reader.line_num}'
      if not row:
        continue
      if len(row) != len(header):
        raise ValueError(
          f'{where}: {len(row)} fields where the header names {len(header)}: '
          f'{row!r}; mend the row, or quote fields that hold the delimiter.'
        )
      yield where, dict(zip(header, row, strict=True))
  except csv.Error as error:
    raise ValueError(
      f'{path}:{reader.line_num}: not CSV ({error}); mend or remove the line.'
    ) from error


def _csv_rows(path: pathlib.Path, required: Sequence[str]) -> Iterator[Row]:
  return delimited(path, required)


def json_lines(path: pathlib.Path, required: Sequence[str]) -> Iterator[Row]:
  """Yields the objects of a JSON-lines file; see `rows`."""
  for number, line in enumerate(lines(path), 1):
    where = f'{path}:{number}'
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise ValueError(
        f'{where}: not JSON ({error}); mend or remove the line.'
      ) from error
    if not isinstance(row, dict):
      raise ValueError(
        f'{where}: {line[:80]!r} is no JSON object; write one object a line, '
        f'with the keys {list(required)}.'
      )
    _require(row, required, where)
    yield where, row


def _parquet_rows(path: pathlib.Path, required: Sequence[str]) -> Iterator[Row]:
  if not path.exists():
    raise FileNotFoundError(f'{path}: no such file; check the path in config.')
  try:
    table = pyarrow.parquet.ParquetFile(path)
  except (pa.ArrowInvalid, OSError) as error:
    raise ValueError(
      f'{path}: not a Parquet file ({error}); write it anew.'
    ) from error
  _require(table.schema_arrow.names, required, str(path))
  number = 0
  batches = table.iter_batches()
  with progress.bar(
    total=table.num_row_groups, desc=f'read {path.name}', unit='batch'
  ) as bar:
    while True:
      try:
        batch = next(batches, None)
        found = None if batch is None else batch.to_pylist()
      except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise ValueError(
          f'{path}:{number + 1}: this row or one of its batch cannot be read '
          f'({error}); write the file anew, with texts in UTF-8.'
        ) from error
      if found is None:
        return
      for row in found:
        number += 1
        yield f'{path}:{number}', row
      bar.update()


def _require(
  columns: Iterable[str], required: Sequence[str], where: str
) -> None:
  missing = [name for name in required if name not in columns]
  if missing:
    raise ValueError(
      f'{where}: no column {missing} among {list(columns)}; add it or rename '
      'the one that holds it.'
    )
