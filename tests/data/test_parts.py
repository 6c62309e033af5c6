"""Files cut into parts and read part by part."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr2_jax.data import parts


def _all(path, most):
  cut = list(parts.cut(path, most))
  assert [part.number for part in cut] == list(range(len(cut)))
  return [(part.first, parts.read(part)) for part in cut]


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  return tmp_path_factory.mktemp('parts') / 'lists.jsonl'


@given(
  st.lists(st.binary(max_size=5).map(lambda x: x.replace(b'\n', b''))),
  st.integers(1, 4),
  st.booleans(),
)
def test_parts_together_are_the_lines(file, lines, most, ends):
  content = b'\n'.join(lines)
  file.write_bytes(content + b'\n' if ends and lines else content)
  found = _all(file, most)
  assert all(len(some) == most for _, some in found[:-1])
  assert [first for first, _ in found] == [
    1 + i * most for i in range(len(found))
  ]
  whole = [line for _, some in found for line in some]
  # What stands behind the last newline is a line if it is not empty.
  if not (ends and lines) and lines[-1:] == [b'']:
    lines = lines[:-1]
  assert whole == lines


def test_rows_of_parquet_are_lines_of_json(tmp_path):
  rows = [
    {
      'history': [f'i{n}'],
      'candidates': ['a', 'ü'],
      'features': {'ctr': [n / 7, 2.0]},
      'scores': None if n % 2 else [1.0, 2.0],
    }
    for n in range(11)
  ]
  folder = tmp_path / 'lists.parquet'
  folder.mkdir()
  for name, some in (('b', rows[:7]), ('a', rows[7:])):
    table = pa.Table.from_pylist(some)
    pyarrow.parquet.write_table(
      table, folder / f'{name}.parquet', row_group_size=3
    )
  (folder / '_SUCCESS').touch()
  found = _all(folder, 2)
  # Parts end with files, and begin anywhere in row groups.
  assert [first for first, _ in found] == [1, 3, 1, 3, 5, 7]
  read = [json.loads(line) for _, some in found for line in some]
  assert read == [
    {key: value for key, value in row.items() if value is not None}
    for row in rows[7:] + rows[:7]
  ]
  names = [part.name for part in parts.cut(folder, 4)]
  assert names == [f'{folder}/{x}.parquet' for x in 'abb']


def test_a_file_that_was_written_again_is_read_again(tmp_path):
  path = tmp_path / 'lists.parquet'
  for value in ('a', 'b'):
    table = pa.table({'value': [value]})
    pyarrow.parquet.write_table(table, path)
    assert _all(path, 5) == [(1, [b'{"value": "%s"}' % value.encode()])]


def test_mistakes_are_named(tmp_path):
  path = tmp_path / 'lists.parquet'
  table = pa.table({'seen': [[{'day': datetime.date(2020, 1, 1)}]]})
  pyarrow.parquet.write_table(table, path)
  with pytest.raises(ValueError, match=r"the column 'seen' holds date32\[day"):
    next(parts.cut(path, 5))
  path.write_bytes(b'PAR1 and no more')
  with pytest.raises(ValueError, match='not a Parquet file that can be read'):
    next(parts.cut(path, 5))
  with pytest.raises(FileNotFoundError, match='absent'):
    next(parts.cut(tmp_path / 'absent.jsonl', 5))
  (tmp_path / 'folder').mkdir()
  with pytest.raises(ValueError, match='a folder without files that end in'):
    next(parts.cut(tmp_path / 'folder', 5))
