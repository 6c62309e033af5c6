import logging

import ml_collections
import pytest

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.stages import data


@pytest.fixture
def config(tmp_path):
  folder = tmp_path / 'raw'
  folder.mkdir()
  items = ''.join(
    f'{{"item_id": "i{i}", "title": "t{i}", "categories": ["c"]}}\n'
    for i in range(6)
  )
  rows = ''.join(
    f'u{u},i{(u + t) % 6},{t}\n' for u in range(4) for t in range(5)
  )
  (folder / 'items.jsonl').write_text(items)
  (folder / 'interactions.csv').write_text(
    'user_id,item_id,timestamp\nu0,i0,0\n' + rows
  )
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {
        'name': 'test',
        'kind': 'generic',
        'dir': str(folder),
        'core': 0,
        'split': {'kind': 'last_n', 'n_test': 2, 'n_valid': 1, 'n_train': 1},
      },
    }
  )


def test_the_summary_has_counts_and_hash(config, tmp_path):
  summary = data.run(config, tmp_path / 'run')
  dataset = dataset_lib.load(tmp_path / 'run' / 'data')
  del summary['seconds']
  assert summary == {
    'name': 'test',
    'users': 4,
    'items': 6,
    'interactions': 20,
    'slates': 0,
    'sha256': dataset.sha256,
    'examples': {'train': 4, 'valid': 4, 'test': 8},
    'out_of_order': 0,
    'duplicates': 1,
    'below_core_users': 0,
    'below_core_items': 0,
    'below_core_interactions': 0,
    'repeats': 0,
    'dropped_slates': 0,
    'untitled': 0,
  }


def test_it_is_skipped_until_the_raw_files_change(config, tmp_path, caplog):
  caplog.set_level(logging.INFO)
  first = data.run(config, tmp_path / 'run')
  assert data.run(config, tmp_path / 'run') == first
  assert 'finished before, skipped' in caplog.text
  with open(f'{config.data.dir}/interactions.csv', 'a') as file:
    file.write('u9,i0,1\n')
  with pytest.raises(ValueError, match='files that it reads.*--redo'):
    data.run(config, tmp_path / 'run')
  changed = data.run(config, tmp_path / 'run', redo=True)
  assert changed['users'] == 5
  assert 'Stage data: what it wrote is deleted' in caplog.text


def test_what_a_killed_run_left_is_cleared(config, tmp_path):
  expected = data.run(config, tmp_path / 'whole')
  killed = tmp_path / 'run' / 'data'
  leftover = killed / 'interactions' / 'test' / 'incomplete.AB12CD_1.0.0'
  leftover.mkdir(parents=True)
  (leftover / 'interactions-items.array_record').write_bytes(b'half')
  (killed / 'config.json').write_bytes(
    (tmp_path / 'whole' / 'data' / 'config.json').read_bytes()
  )
  summary = data.run(config, tmp_path / 'run')
  assert not leftover.exists()
  assert summary['sha256'] == expected['sha256']
  # Killed after the data set was complete, before DONE: it is kept.
  (killed / 'DONE').unlink()
  again = data.run(config, tmp_path / 'run')
  assert again['sha256'] == expected['sha256']


def test_unknown_fields_are_named(config, tmp_path):
  config.data.cores = 5
  with pytest.raises(ValueError, match='cores: did you mean SourceConfig.core'):
    data.run(config, tmp_path / 'run')
