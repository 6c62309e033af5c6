"""Files of records, cut into parts of a number of lines.

Whoever reads a file part by part, one process or many machines, has the same
records together.
"""

import functools
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet

from gr2_jax.data import parquet, raw_files

_PARQUET = '.parquet'


class Part(NamedTuple):
  """Some lines of a file.

  Attributes:
    number: place among the parts of all files, from 0 on.
    path: the file, absolute.
    name: the file as it was given.
    begin: where the part begins: its first byte, of Parquet its first row.
    end: the byte or the row behind it.
    first: number of its first line or row in the file, from 1 on.
  """

  number: int
  path: str
  name: str
  begin: int
  end: int
  first: int


def cut(path: pathlib.Path, most: int) -> Iterator[Part]:
  """Cuts JSON lines or Parquet.

  Args:
    path: JSON lines, a Parquet file, or a folder of such as Spark writes it.
    most: lines or rows of a part; the last one of a file may have fewer.

  Yields:
    The parts, in the order of files and lines; none spans two files.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a folder without Parquet, a file that is no Parquet, or a column
      that JSON has no values for.
  """
  number = itertools.count()
  for file in parquet.parts(path):
    ranges = _rows if file.name.endswith(_PARQUET) else _lines
    where = str(file.absolute()), str(file)
    for begin, end, first in ranges(file, most):
      yield Part(next(number), *where, begin, end, first)


def _lines(path: pathlib.Path, most: int) -> Iterator[tuple[int, int, int]]:
  """Yields the first byte, the byte behind and the first line of each part."""
  begin, first = 0, 1
  with path.open('rb') as file:
    while count := sum(1 for _ in itertools.islice(file, most)):
      yield begin, file.tell(), first
      begin, first = file.tell(), first + count


def _rows(path: pathlib.Path, most: int) -> Iterator[tuple[int, int, int]]:
  """Yields the first row, the row behind and the first row's number."""
  with _open(path) as table:
    for field in table.schema_arrow:
      _check(field.type, f'{path}: the column {field.name!r}')
    rows = table.metadata.num_rows
  for begin in range(0, rows, most):
    yield begin, min(begin + most, rows), begin + 1


def _open(path: pathlib.Path) -> pyarrow.parquet.ParquetFile:
  raw_files.check(path, b'PAR1')
  try:
    return pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
  except (pa.ArrowException, OSError) as error:
    raise ValueError(
      f'{path}: not a Parquet file that can be read ({error}); write it again, '
      'or fetch it again where it is cut off.'
    ) from error


def _check(kind: pa.DataType, where: str) -> None:
  """Refuses a column whose values JSON does not have."""
  types = pa.types
  if types.is_struct(kind):
    for field in kind:
      _check(field.type, where)
  elif (
    types.is_list(kind)
    or types.is_large_list(kind)
    or types.is_fixed_size_list(kind)
    or types.is_dictionary(kind)
  ):
    _check(kind.value_type, where)
  elif not (
    types.is_boolean(kind)
    or types.is_integer(kind)
    or types.is_float32(kind)
    or types.is_float64(kind)
    or types.is_string(kind)
    or types.is_large_string(kind)
    or types.is_null(kind)
  ):
    raise ValueError(
      f'{where} holds {kind}, which JSON does not have; write it as a string '
      'or a number, or leave it out.'
    )


def read(part: Part) -> list[bytes]:
  """Reads a part.

  Args:
    part: of `cut`.

  Returns:
    Its lines without their line breaks; rows of Parquet as JSON.

  Raises:
    OSError: the file cannot be read.
    ValueError: a damaged Parquet file.
  """
  path = pathlib.Path(part.path)
  if path.name.endswith(_PARQUET):
    rows = _table(path, path.stat().st_mtime_ns, part.begin, part.end)
    # A table has no other way to leave a key out.
    given = ({k: x for k, x in row.items() if x is not None} for row in rows)
    return [json.dumps(row).encode() for row in given]
  with path.open('rb') as file:
    file.seek(part.begin)
    content = file.read(part.end - part.begin)
  return content.removesuffix(b'\n').split(b'\n')


def _table(path: pathlib.Path, changed: int, begin: int, end: int) -> list:
  """Returns rows of a Parquet file as Python values."""
  found, passed = [], 0
  with _open(path) as table:
    sizes = [
      table.metadata.row_group(i).num_rows
      for i in range(table.metadata.num_row_groups)
    ]
  for group, size in enumerate(sizes):
    own = slice(max(begin - passed, 0), max(end - passed, 0))
    if own.start < size and own.stop:
      rows = _group(path, changed, group)
      found += rows.slice(own.start, own.stop - own.start).to_pylist()
    passed += size
  return found


@functools.lru_cache(maxsize=1)
def _group(path: pathlib.Path, changed: int, group: int) -> pa.Table:
  """Reads a row group; the parts of one are read one after the other."""
  del changed  # What was read of a file that was written again is not used.
  with _open(path) as table:
    try:
      return table.read_row_group(group)
    except (pa.ArrowException, OSError) as error:
      raise ValueError(
        f'{path}: its row group {group} cannot be read ({error}); write the '
        'file or fetch it again.'
      ) from error
