"""Apache Beam gives what this process gives; see tests/README.md."""

import json

import numpy as np
import pytest

from gr2_jax.data import builder, generic, sources, splits, stored

SPLIT = splits.SplitConfig()
PARTS = 3
# Beam holds protobuf and others at versions that TFDS has warnings for.
pytestmark = pytest.mark.filterwarnings('default')
# Nothing else: beside it Beam's runners want servers.
DIRECT = '--runner=DirectRunner'


@pytest.fixture(scope='module')
def raw():
  """Lines of items, interactions and slates: ties, repeats, rare ones."""
  rng = np.random.default_rng(0)
  items = [f'i{index * 7 % 40}' for index in range(40)]
  records = [
    {
      'item_id': item,
      'title': '' if index % 9 == 0 else f'Title "{item}" ü',
      'categories': ['a', f'b{index % 3}'],
      'price': None if index % 2 else index / 7,
    }
    for index, item in enumerate(items)
  ]
  # Few users and items with many rows, many with few.
  users = [f'u{int(x)}' for x in rng.exponential(12, 600)]
  chosen = [items[int(x) % 40] for x in rng.exponential(9, 600)]
  rows = [
    {'user_id': user, 'item_id': item, 'timestamp': int(time)}
    for user, item, time in zip(
      users, chosen, rng.integers(0, 50, 600), strict=True
    )
  ]
  rows += rows[:40:3]
  slates = [
    {
      'user_id': row['user_id'],
      'timestamp': index % 5,
      'item_ids': sorted({row['item_id'], items[index]}),
      'labels': [index % 3] * len({row['item_id'], items[index]}),
      'features': {
        'ctr': [index / 7] * len({row['item_id'], items[index]}),
        'age': [index] * len({row['item_id'], items[index]}),
      },
    }
    for index, row in enumerate(rows[:30])
  ]
  return {'items': records, 'interactions': rows, 'slates': slates}


def _write(folder, raw, parts):
  folder.mkdir()
  for name, records in raw.items():
    for part, some in enumerate(np.array_split(records, parts)):
      ending = '' if parts == 1 else f'-{part:03d}'
      text = ''.join(json.dumps(record) + '\n' for record in some)
      (folder / f'{name}{ending}.jsonl').write_text(text)


def test_parts_are_found_in_order(tmp_path, raw):
  _write(tmp_path / 'parts', raw, PARTS)
  found = generic.parts(tmp_path / 'parts')
  assert [path.name for path in found['items']] == [
    'items-000.jsonl', 'items-001.jsonl', 'items-002.jsonl',
  ]  # fmt: skip
  _write(tmp_path / 'whole', raw, 1)
  whole = generic.parts(tmp_path / 'whole')
  assert [path.name for path in whole['slates']] == ['slates.jsonl']
  (tmp_path / 'whole' / 'interactions.jsonl').unlink()
  with pytest.raises(FileNotFoundError, match='no file of interactions'):
    generic.parts(tmp_path / 'whole')


def test_beam_is_for_generic_data():
  with pytest.raises(ValueError, match="data.beam is set, but data.kind is 'm"):
    sources.SourceConfig('x', 'ml-100k', beam=DIRECT)


def test_the_fingerprint_sees_changes(tmp_path, raw):
  _write(tmp_path / 'parts', raw, PARTS)
  source = sources.SourceConfig(
    'test', 'generic', str(tmp_path / 'parts'), beam=DIRECT
  )
  before = sources.fingerprint(source)
  assert sources.fingerprint(source) == before
  with (tmp_path / 'parts' / 'items-001.jsonl').open('a') as file:
    file.write('\n')
  assert sources.fingerprint(source) != before


@pytest.mark.slow
@pytest.mark.parametrize('core', [0, 3, 6])
@pytest.mark.parametrize('with_slates', [True, False])
def test_beam_gives_the_same_data_set(
  core, with_slates, tmp_path, raw, monkeypatch
):
  pytest.importorskip('apache_beam')
  raw = {k: v for k, v in raw.items() if with_slates or k != 'slates'}
  found = {}
  for beam, parts in (('', 1), (DIRECT, PARTS)):
    folder = tmp_path / f'raw{parts}'
    _write(folder, raw, parts)
    source = sources.SourceConfig(
      'test', 'generic', str(folder), core=core, beam=beam
    )
    builder.write(tmp_path / f'data{parts}', source, SPLIT)
    found[beam] = stored.load(tmp_path / f'data{parts}')
  assert found[DIRECT].sha256 == found[''].sha256
  assert found[DIRECT].counts == found[''].counts
  assert (found[''].counts['below_core_users'] > 0) == (core > 0)
  assert bool(found[DIRECT].slates) == with_slates
  columns = ('ctr', 'age') if with_slates else ()
  assert found[DIRECT].slate_columns == found[''].slate_columns == columns
  # No intermediate file is left, and nothing is done again.
  assert not (tmp_path / 'data3' / 'beam').exists()
  monkeypatch.delattr('gr2_jax.data.beam.Tables')
  builder.write(tmp_path / 'data3', source, SPLIT)


@pytest.mark.slow
def test_bad_rows_are_named(tmp_path, raw):
  pytest.importorskip('apache_beam')
  row = {'user_id': 'u1', 'item_id': 'none', 'timestamp': 3}
  raw = {**raw, 'interactions': [*raw['interactions'], row]}
  _write(tmp_path / 'raw', raw, PARTS)
  source = sources.SourceConfig(
    'test', 'generic', str(tmp_path / 'raw'), core=0, beam=DIRECT
  )
  with pytest.raises(Exception, match=r'interactions-002.jsonl:\d+: the item'):
    builder.write(tmp_path / 'data', source, SPLIT)


@pytest.mark.slow
def test_nothing_left_is_an_error(tmp_path, raw):
  pytest.importorskip('apache_beam')
  _write(tmp_path / 'raw', raw, PARTS)
  source = sources.SourceConfig(
    'test', 'generic', str(tmp_path / 'raw'), core=500, beam=DIRECT
  )
  with pytest.raises(ValueError, match='none is left with core=500'):
    builder.write(tmp_path / 'data', source, SPLIT)


@pytest.mark.slow
def test_times_in_two_units_are_refused(tmp_path, raw):
  pytest.importorskip('apache_beam')
  rows = [{**row, 'timestamp': 10**9} for row in raw['interactions']]
  rows[-1]['timestamp'] = 10**12
  _write(tmp_path / 'raw', {**raw, 'interactions': rows}, PARTS)
  source = sources.SourceConfig(
    'test', 'generic', str(tmp_path / 'raw'), core=0, beam=DIRECT
  )
  with pytest.raises(ValueError, match='1 in milliseconds since 1970; write'):
    builder.write(tmp_path / 'data', source, SPLIT)
