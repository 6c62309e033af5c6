import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from gr2_jax.data import builder, records, sources, splits, stored
from gr2_jax.data import dataset as dataset_lib

ITEMS = """\
{"item_id": "A1", "title": "Röse \\"soap\\"", "categories": ["Beauty", "Bath"]}
{"item_id": "A2", "title": "", "categories": [], "brand": "b", "price": 5.04}
{"item_id": "A3", "title": "Nail file", "categories": ["x"], "description": "d"}
"""
ROWS = """\
user_id,item_id,timestamp
bob,A2,1700000000000000000
ann,A1,3
ann,A3,2
ann,A2,9
ann,A1,7
"""
SLATES = """\
{"user_id": "bob", "timestamp": 4, "item_ids": ["A3", "A1"], "labels": [0, 2]}
"""
ROOT = pathlib.Path(__file__).resolve().parents[2]
SPLIT = splits.SplitConfig()


@pytest.fixture
def source(tmp_path):
  folder = tmp_path / 'raw'
  folder.mkdir()
  (folder / 'items.jsonl').write_text(ITEMS)
  (folder / 'interactions.csv').write_text(ROWS)
  (folder / 'slates.jsonl').write_text(SLATES)
  return sources.SourceConfig('test', 'generic', str(folder), core=0)


def _assert_same(left, right):
  for field in dataclasses.fields(dataset_lib.Dataset):
    one, other = getattr(left, field.name), getattr(right, field.name)
    if isinstance(one, np.ndarray):
      assert one.dtype == other.dtype
      np.testing.assert_array_equal(one, other)
    else:
      assert one == other
  assert left.sha256 == right.sha256


def test_what_is_written_is_read_back(tmp_path, source):
  builder.write(tmp_path / 'data', source, SPLIT)
  read = stored.load(tmp_path / 'data')
  _assert_same(read, sources.read(source))
  assert read.items[1].price == 5.04
  assert read.slates == [dataset_lib.Slate(1, 4, (2, 0), (0, 2))]
  assert read.timestamps[-1] == 1700000000000000000


def test_an_item_from_before_rows_were_written_has_none(tmp_path, source):
  builder.write(tmp_path / 'data', source, SPLIT)
  read = stored.load(tmp_path / 'data')
  np.testing.assert_array_equal(read.rows, [0, 1, 2])
  record = tf_example_pb2.Example().features.feature
  assert not records.integers(record, 'row')


def test_columns_of_slates_are_read_back(tmp_path, source):
  lines = (
    '{"user_id": "bob", "timestamp": 4, "item_ids": ["A3", "A1"],'
    ' "labels": [0, 2], "features": {"ctr": [0.1, 1e-30], "age": [3, 4]}}\n'
    '{"user_id": "ann", "timestamp": 5, "item_ids": ["A1", "A2", "A3"],'
    ' "labels": [0, 2, 0], "features": {"age": [7, 8, 9], "ctr": [0, 1, 2]}}\n'
  )
  with open(f'{source.dir}/slates.jsonl', 'w') as file:
    file.write(lines)
  builder.write(tmp_path / 'data', source, SPLIT)
  read = stored.load(tmp_path / 'data')
  _assert_same(read, sources.read(source))
  assert read.slate_columns == ('ctr', 'age')
  ann, bob = read.slates
  assert ann.columns == ((0.0, 1.0, 2.0), (7.0, 8.0, 9.0))
  single = tuple(np.array([0.1, 1e-30], np.float32).tolist())
  assert bob.columns == (single, (3.0, 4.0))


def test_a_slate_from_before_there_were_columns_has_none():
  record = tf_example_pb2.Example().features.feature
  record['id'].bytes_list.value.append(b'ann')
  record['timestamps'].int64_list.value.append(4)
  record['items'].int64_list.value.extend([2, 0])
  record['labels'].int64_list.value.extend([0, 2])
  read = records.to_slate(record, {'ann': 7})
  assert read == dataset_lib.Slate(7, 4, (2, 0), (0, 2))


def test_any_tfds_reader_finds_tables_and_splits(tmp_path, source):
  builder.write(tmp_path / 'data', source, SPLIT)
  found = tfds.builder_from_directory(
    tmp_path / 'data' / 'interactions' / 'test' / '1.0.0'
  )
  assert found.info.file_format.value == 'array_record'
  users = found.as_data_source('users')
  assert [user['id'] for user in users] == [b'ann', b'bob']
  np.testing.assert_array_equal(users[0]['items'], [2, 0, 0, 1])
  read = stored.load(tmp_path / 'data')
  made = splits.make(read, SPLIT)
  for index, user in enumerate(users):
    assert user['bounds'][0] == made.train_end[index]
    for part, name in enumerate(splits.NAMES):
      owner, position = made.examples[name]
      np.testing.assert_array_equal(
        np.arange(user['bounds'][part], user['bounds'][part + 1]),
        position[owner == index],
      )


def test_a_changed_data_set_is_an_error(tmp_path, source):
  builder.write(tmp_path / 'data', source, SPLIT)
  metadata = next((tmp_path / 'data').rglob('1.0.0/metadata.json'))
  sha256 = stored.load(tmp_path / 'data').sha256
  metadata.write_text(metadata.read_text().replace(sha256, '0' * 64))
  with pytest.raises(ValueError, match='was changed after it was written'):
    stored.load(tmp_path / 'data')


def test_bad_input_comes_through_unchanged(tmp_path, source):
  with open(f'{source.dir}/interactions.csv', 'a') as file:
    file.write('ann,A9,5\n')
  with pytest.raises(
    ValueError, match=r"^\S*interactions.csv:7: the item 'A9'"
  ):
    builder.write(tmp_path / 'data', source, SPLIT)
  with pytest.raises(FileNotFoundError, match='0 data sets'):
    stored.load(tmp_path / 'data')


def test_tensorflow_stays_out(tmp_path, source):
  code = (
    'import sys\n'
    'from gr2_jax.data import builder, sources, splits, stored\n'
    f'builder.write({str(tmp_path / "data")!r},'
    f' sources.SourceConfig("test", "generic", {source.dir!r}, 0),'
    ' splits.SplitConfig())\n'
    f'print(stored.load({str(tmp_path / "data")!r}).num_users)\n'
    'print("tensorflow" in sys.modules)\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.split()[-2:] == ['2', 'False']


def _cut(data):
  return data[: len(data) // 2]


def _flip(data):
  middle = len(data) // 2
  return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
  'name', ['dataset_info.json', 'features.json', 'metadata.json']
)
@pytest.mark.parametrize('content', ['', 'null', '[]', '{', None])
def test_damaged_descriptions_are_named(tmp_path, source, name, content):
  builder.write(tmp_path, source, SPLIT)
  (path,) = tmp_path.glob(f'interactions/*/*/{name}')
  path.unlink()
  if content is not None:
    path.write_text(content)
  with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
    builder.read(tmp_path)


@pytest.mark.parametrize('damage', [_cut, _flip, lambda data: b''])
@pytest.mark.parametrize('table', ['items', 'users', 'slates'])
def test_a_damaged_shard_is_named(tmp_path, source, table, damage):
  builder.write(tmp_path / 'data', source, SPLIT)
  (shard,) = (tmp_path / 'data').rglob(f'*-{table}.array_record-*')
  shard.write_bytes(damage(shard.read_bytes()))
  with pytest.raises(ValueError, match=rf'{shard} is damaged .* stage data'):
    stored.load(tmp_path / 'data')
