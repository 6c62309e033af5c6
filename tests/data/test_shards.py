import numpy as np
import pytest

from gr2_jax.data import pipeline, shards


class Source:
  """Examples of given lengths, whose tokens and weights tell them apart."""

  def __init__(self, lengths):
    self.lengths = lengths

  def __len__(self):
    return len(self.lengths)

  def __getitem__(self, index):
    n = self.lengths[index]
    weights = np.linspace(0, 1, n) if n > 1 else np.zeros(1)
    return {
      'tokens': np.arange(n, dtype=np.int32) + 1000 * int(index),
      'weights': weights.astype(np.float32),
    }


SOURCE = Source([3, 1, 16, 7, 2, 9, 5] * 3)


def _assert_same(left, right):
  assert left.keys() == right.keys()
  for name in left:
    assert left[name].dtype == right[name].dtype
    np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize('count', [1, 4, 21])
def test_what_is_written_is_read_back(count, tmp_path):
  shards.write(SOURCE, tmp_path / 'it', count)
  assert len(list((tmp_path / 'it').glob('*.array_record'))) == count
  found = shards.Shards(tmp_path / 'it')
  assert len(found) == len(SOURCE)
  for index in np.random.default_rng(0).permutation(len(SOURCE)):
    _assert_same(found[index], SOURCE[index])
  for index in (-1, len(SOURCE)):
    with pytest.raises(IndexError, match='There are 21 examples'):
      found[index]


def test_batches_are_those_of_the_source_itself(tmp_path):
  shards.write(SOURCE, tmp_path / 'it', 4)
  both = [
    pipeline.lm_iterator({'a': source}, {'a': 1.0}, 16, 3, seed=5)
    for source in (SOURCE, shards.Shards(tmp_path / 'it'))
  ]
  for _ in range(12):
    _assert_same(*map(next, both))


def test_finished_shards_are_kept_and_unfinished_ones_are_not(
  tmp_path, killed_after
):
  with killed_after(shards, '_encode', calls=10):
    shards.write(SOURCE, tmp_path / 'it', 4)
  assert not (tmp_path / 'it').exists()
  shards.write(SOURCE, tmp_path / 'it', 4)
  before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob('*.*'))
  shards.write(SOURCE, tmp_path / 'it', 4)
  after = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob('*.*'))
  assert before == after
  with pytest.raises(ValueError, match='21 examples, not 2: they are of other'):
    shards.write(Source([1, 1]), tmp_path / 'it', 1)


@pytest.mark.parametrize('count', [0, 22])
def test_each_shard_needs_an_example(count, tmp_path):
  with pytest.raises(ValueError, match=f'{count} shards for 21 examples'):
    shards.write(SOURCE, tmp_path / 'it', count)


def test_a_folder_without_shards_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='shards.json: no such file'):
    shards.Shards(tmp_path)


def test_a_missing_shard_is_an_error(tmp_path):
  shards.write(SOURCE, tmp_path / 'it', 4)
  next((tmp_path / 'it').glob('*.array_record')).unlink()
  with pytest.raises(ValueError, match='holds 3 files of examples, not 4'):
    shards.Shards(tmp_path / 'it')


@pytest.mark.parametrize('damage', ['cut', 'swapped', 'flipped'])
def test_a_damaged_shard_is_named(damage, tmp_path):
  # Larger than a block of the format, so that its end and middle are apart.
  source = Source([2000] * 40)
  shards.write(source, tmp_path / 'it', 4)
  shard = tmp_path / 'it' / 'examples-00002-of-00004.array_record'
  content = bytearray(shard.read_bytes())
  if damage == 'cut':
    content = content[: len(content) // 2]
  elif damage == 'swapped':
    shards.write(Source([2000] * 8), tmp_path / 'other', 1)
    content = next((tmp_path / 'other').glob('*record')).read_bytes()
  else:
    half = len(content) // 2
    content[half : half + 64] = bytes(
      255 - b for b in content[half : half + 64]
    )
  shard.write_bytes(content)
  with pytest.raises(ValueError, match=f'{shard.name} cannot be read.*damaged'):
    found = shards.Shards(tmp_path / 'it')
    for index in range(len(found)):
      found[index]


@pytest.mark.parametrize(
  'example',
  [
    {'tokens': [], 'weights': []},
    {'tokens': [1, 2], 'weights': [0.0]},
  ],
)
def test_malformed_examples_are_not_written(example, tmp_path):
  with pytest.raises(ValueError, match='must be'):
    shards.write([example], tmp_path / 'it', 1)
