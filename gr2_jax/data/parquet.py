"""Reads rows of Parquet, as pandas, Spark and the like write it."""

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from gr2_jax import progress
from gr2_jax.data import raw_files

# What pyarrow raises of a file that is damaged.
_DAMAGED = (
  *(pa.ArrowException, OSError, ValueError, OverflowError),
  *(MemoryError, KeyError, TypeError),
)
# Floats with fewer digits than a time or an id has.
_ROUNDED = (pa.float16(), pa.float32())


def parts(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of a table: itself, or the parts that a folder holds.

  Args:
    path: a file, or a folder as Spark writes it. Files in it whose name or
      folder begins with `_` or `.` are no parts.

  Returns:
    Files, by name.

  Raises:
    ValueError: a folder without parts.
  """
  if not path.is_dir():
    return [path]
  found = [
    part
    for part in sorted(path.rglob('*.parquet'))
    if part.is_file()
    and not any(n[0] in '_.' for n in part.relative_to(path).parts)
  ]
  if not found:
    raise ValueError(
      f'{path}: a folder without files that end in .parquet; write the table '
      'there again, or remove the folder.'
    )
  return found


def all_parts(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Returns the files of several tables; see `parts`."""
  return [part for path in paths for part in parts(path)]


def rows(
  path: pathlib.Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields the rows of a table.

  Args:
    path: a file, or a folder with parts.
    required: columns that must be there.
    optional: columns that are read, too, where they are there.

  Yields:
    ('file:row', {column: value}), rows of a file counted from 1. Dates are
    whole microseconds since 1970, those without a zone taken as UTC; of
    nanoseconds what is below a microsecond is cut.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: no Parquet, a missing or repeated column, a required column of
      rounded numbers, or a row that cannot be read.
  """
  for part in parts(path):
    yield from _part_rows(part, required, optional)


def _part_rows(
  path: pathlib.Path, required: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
  raw_files.check(path, b'PAR1')
  try:
    table = pyarrow.parquet.ParquetFile(
      path, coerce_int96_timestamp_unit='us', page_checksum_verification=True
    )
    schema = table.schema_arrow
    names = schema.names
  except _DAMAGED as error:
    raise ValueError(
      f'{path}: not a Parquet file that can be read ({error}); write it again, '
      'or fetch it again where it is cut off.'
    ) from error
  raw_files.require(names, required, str(path))
  for name in required:
    if schema.field(name).type in _ROUNDED:
      raise ValueError(
        f'{path}: the column {name!r} holds {schema.field(name).type}, which '
        'rounds large numbers; write it as int64.'
      )
  wanted = [name for name in names if name in (*required, *optional)]
  number = 0
  with (
    table,
    progress.bar(
      total=table.num_row_groups, desc=f'read {path.name}', unit='batch'
    ) as bar,
  ):
    batches = table.iter_batches(columns=wanted)
    while True:
      try:
        batch = next(batches, None)
        found = None if batch is None else _values(batch)
      except _DAMAGED as error:
        raise ValueError(
          f'{path}:{number + 1}: this row or one of its batch cannot be read '
          f'({error}); write the file again, with texts in UTF-8.'
        ) from error
      if found is None:
        return
      for row in found:
        number += 1
        yield f'{path}:{number}', row
      bar.update()


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]]:
  """Returns the rows of a batch as Python values."""
  columns = []
  for column in batch.columns:
    if pa.types.is_date(column.type):
      column = column.cast(pa.timestamp('us'))
    if pa.types.is_timestamp(column.type):
      nano = column.type.unit == 'ns'
      column = column.cast(pa.timestamp('us'), safe=not nano).cast(pa.int64())
    columns.append(column)
  return pa.RecordBatch.from_arrays(columns, batch.schema.names).to_pylist()
