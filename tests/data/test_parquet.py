import datetime
import decimal

import pyarrow as pa
import pyarrow.parquet
import pytest

from gr2_jax.data import fields, generic, parquet, sources

US = 1_700_000_060_000_000


def _rows(path, column, required=('x',)):
  pyarrow.parquet.write_table(pa.table({'x': column}), path)
  return [row['x'] for _, row in parquet.rows(path, required)]


@pytest.mark.parametrize(
  ('kind', 'value', 'expected'),
  [
    (pa.timestamp('s'), US // 10**6, US),
    (pa.timestamp('ms'), US // 1000, US),
    (pa.timestamp('us'), US + 1, US + 1),
    # Nanoseconds are cut: one of pandas' types, which pandas fills by default.
    (pa.timestamp('ns'), US * 1000 + 1, US),
    (pa.timestamp('ns', 'Europe/Berlin'), US * 1000 + 999, US),
    (pa.timestamp('us', '+02:00'), US, US),
    (pa.timestamp('us', 'Nowhere/Land'), US, US),
    (pa.date32(), 19_675, 19_675 * 86_400 * 10**6),
    (pa.date64(), 19_675 * 86_400_000, 19_675 * 86_400 * 10**6),
    (pa.int64(), US, US),
    (pa.float64(), 1.7e9, 1.7e9),
  ],
)
def test_date_times_are_microseconds(tmp_path, kind, value, expected):
  size = pa.int32() if kind == pa.date32() else pa.int64()
  column = pa.array([value], size).cast(kind)
  assert _rows(tmp_path / 'x.parquet', column) == [expected]


def test_old_times_of_spark(tmp_path):
  column = [datetime.datetime(1970, 1, 2), datetime.datetime(2500, 1, 1)]
  path = tmp_path / 'x.parquet'
  pyarrow.parquet.write_table(
    pa.table({'x': column}), path, use_deprecated_int96_timestamps=True
  )
  found = [row['x'] for _, row in parquet.rows(path, ('x',))]
  assert found[0] == 86_400_000_000 and found[1] > found[0]


def test_decimals_keep_their_fraction(tmp_path):
  column = pa.array([decimal.Decimal('1.900')], pa.decimal128(18, 3))
  (found,) = _rows(tmp_path / 'x.parquet', column)
  with pytest.raises(
    ValueError, match="f:1: timestamp is Decimal.'1.900'.*mil"
  ):
    fields.timestamp(found, 'f:1')


def test_rounded_times_are_refused(tmp_path):
  with pytest.raises(ValueError, match="x.parquet: .*'x' holds float, .*int64"):
    _rows(tmp_path / 'x.parquet', pa.array([1.7e9], pa.float32()))


def test_times_beyond_all_calendars_are_refused(tmp_path):
  column = pa.array([2**62]).cast(pa.timestamp('ms'))
  with pytest.raises(ValueError, match='x.parquet:1: this row or one of its'):
    _rows(tmp_path / 'x.parquet', column)


def test_a_column_name_twice_is_an_error(tmp_path):
  table = pa.table([[1], [2]], names=['x', 'x'])
  pyarrow.parquet.write_table(table, tmp_path / 'x.parquet')
  with pytest.raises(
    ValueError, match="x.parquet: the column 'x' stands twice"
  ):
    list(parquet.rows(tmp_path / 'x.parquet', ('x',)))


def test_only_the_columns_that_are_asked_for_are_read(tmp_path):
  """Others may be of types that Python cannot hold."""
  strange = pa.array([1], pa.int64()).cast(pa.timestamp('ns', 'Nowhere/Land'))
  table = pa.table({'x': [1], 'y': pa.array([[strange[0]]]), 'z': [3]})
  pyarrow.parquet.write_table(table, tmp_path / 'x.parquet')
  found = list(parquet.rows(tmp_path / 'x.parquet', ('x',), ('z', 'none')))
  assert found == [(f'{tmp_path}/x.parquet:1', {'x': 1, 'z': 3})]


@pytest.fixture
def spark(tmp_path):
  """A data set as Spark and pandas write it; returns its folder."""
  folder = tmp_path / 'interactions.parquet'
  (folder / 'day=2').mkdir(parents=True)
  for name, users in (
    ('part-00001.snappy.parquet', ['bob', 'bob']),
    ('part-00000.snappy.parquet', ['ann']),
    ('day=2/part-00000.snappy.parquet', ['eve']),
  ):
    size = len(users)
    table = {
      'user_id': users,
      'item_id': ['A'] * size,
      'timestamp': range(size),
    }
    pyarrow.parquet.write_table(pa.table(table), folder / name)
  (folder / '_SUCCESS').write_bytes(b'')
  (folder / '_metadata.parquet').write_bytes(b'no part')
  missing = pa.array([float('nan')])
  items = {
    'item_id': pa.array(['A']).dictionary_encode(),
    'title': ['Rose'],
    'categories': pa.array([None], pa.null()),
    'brand': missing,
    'price': missing,
    'description': pa.array([None], pa.null()),
  }
  pyarrow.parquet.write_table(pa.table(items), tmp_path / 'items.parquet')
  return tmp_path


def test_folders_of_parts_and_columns_of_nothing(spark):
  read = generic.read(spark)
  users = [row.user_id for row in read.interactions]
  assert users == ['eve', 'ann', 'bob', 'bob']
  (item,) = read.items
  assert (item.categories, item.brand, item.price) == ((), '', None)


def test_the_fingerprint_is_of_all_parts(spark):
  cfg = sources.SourceConfig('test', 'generic', str(spark))
  before = sources.fingerprint(cfg)
  part = spark / 'interactions.parquet' / 'part-00001.snappy.parquet'
  part.unlink()
  assert sources.fingerprint(cfg) != before


def test_an_error_names_the_part(spark):
  part = spark / 'interactions.parquet' / 'part-00001.snappy.parquet'
  part.write_bytes(part.read_bytes()[:-9])
  with pytest.raises(
    ValueError, match='parquet/part-00001.snappy.parquet: not'
  ):
    generic.read(spark)
  for path in sorted((spark / 'interactions.parquet').rglob('part*')):
    path.unlink()
  with pytest.raises(
    ValueError, match='interactions.parquet: a folder without'
  ):
    generic.read(spark)
