"""Reads rows of delimited text: CSV and its relatives, with a header line."""

import csv
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gr2_jax.data import fields, raw_files

# Fields that stand as they are, tabs between them: no quotes.
TABS = {'delimiter': '\t', 'quoting': csv.QUOTE_NONE}


class _Feed:
  """Gives lines to a reader of CSV and keeps those of the current record.

  Attributes:
    record: the lines that the reader took for it.
  """

  def __init__(self, found: Iterable[str]):
    self._found = found
    self.record: list[str] = []

  def __iter__(self) -> Iterator[str]:
    for line in self._found:
      # csv wants line breaks inside quoted fields, so they are put back.
      self.record.append(f'{line}\n')
      yield self.record[-1]


def rows(
  path: pathlib.Path, required: Sequence[str], **dialect: Any
) -> Iterator[tuple[str, dict[str, str]]]:
  """Yields the rows of a delimited file with a header line.

  Args:
    path: the file.
    required: columns that the header must name.
    **dialect: what `csv.reader` takes, e.g. `delimiter`.

  Yields:
    ('file:line', {column: text}), the line where the row begins.

  Raises:
    ValueError: a missing or repeated column, a row that does not parse; of a
      quote that is never closed, with the line where it opens.
  """
  # Texts have a limit of their own, the same for all formats (`fields`).
  csv.field_size_limit(raw_files.LONGEST_LINE)
  feed = _Feed(raw_files.lines(path))
  reader = csv.reader(feed, strict=True, **dialect)
  try:
    header = next(reader)
    if not ''.join(header).strip():
      raise ValueError(
        f'{path}:1: the first line has no names of columns; write them there, '
        'or remove the line where they stand below it.'
      )
    _check_delimiter(header, required, f'{path}:1')
    raw_files.require(header, required, f'{path}:1')
    first = reader.line_num + 1
    feed.record.clear()
    for row in reader:
      where = f'{path}:{first}'
      first = reader.line_num + 1
      feed.record.clear()
      if not row:
        continue
      if len(row) != len(header):
        raise ValueError(
          f'{where}: {len(row)} fields where the header names {len(header)}: '
          f'{fields.shown(row)}; fix the row, or quote fields that hold the '
          'delimiter.'
        )
      yield where, dict(zip(header, row, strict=True))
  except csv.Error as error:
    last = reader.line_num
    begin = last - len(feed.record) + 1
    opened = _open_quote(feed.record, reader.dialect.delimiter)
    if opened is None or reader.dialect.quoting == csv.QUOTE_NONE:
      raise ValueError(
        f'{path}:{last}: not CSV ({error}); fix or remove the line.'
      ) from error
    raise ValueError(
      f'{path}:{begin + opened}: not CSV: a quote (") opens here and is not '
      f'closed as it should ({error} at line {last}); close it, or write "" '
      'for a quote inside of a text.'
    ) from error


def bare_rows(
  path: pathlib.Path, columns: Sequence[str], mark: str
) -> Iterator[tuple[str, list[str]]]:
  """Yields the rows of a file without header line, quotes and escapes.

  Args:
    path: the file, UTF-8 or Latin-1, as GroupLens has them.
    columns: what its columns are, for messages.
    mark: what stands between the fields.

  Yields:
    ('file:line', fields), as many as `columns`; empty lines are no rows.

  Raises:
    ValueError: a row of more or fewer fields.
  """
  for number, line in enumerate(raw_files.lines(path, latin=True), 1):
    found = line.split(mark)
    if line and len(found) != len(columns):
      raise ValueError(
        f'{path}:{number}: {len(found)} fields, not {len(columns)}: '
        f'{fields.shown(line)}; write {mark.join(columns)}.'
      )
    if line:
      yield f'{path}:{number}', found


def _check_delimiter(
  header: Sequence[str], required: Sequence[str], where: str
) -> None:
  """Finds out about a file whose columns another character separates."""
  found = [mark for mark in ';\t|,' if mark in ''.join(header)]
  if len(header) == 1 and len(required) > 1 and found:
    raise ValueError(
      f'{where}: one column, {fields.shown(header[0])}: {found[0]!r} stands '
      'between the names; write the file with the delimiter of its format '
      '(CSV: a comma, .inter and .item: a tab).'
    )


def _open_quote(record: Sequence[str], delimiter: str) -> int | None:
  """Returns the line of a record in which its last quoted field begins."""
  opened, quoted, closed, start = None, False, False, True
  for number, line in enumerate(record):
    for char in line:
      if quoted:
        quoted, closed = char != '"', char == '"'
        continue
      if char == '"' and start:
        opened, quoted = number, True
      elif char == '"' and closed:
        # Two quotes in a quoted field are one, and it goes on.
        quoted = True
      closed, start = False, char == delimiter
  return opened
