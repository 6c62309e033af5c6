import logging

import ml_collections
import pytest

from gr2_jax.data import stored
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
  dataset = stored.load(tmp_path / 'run' / 'data')
  del summary['seconds']
  assert summary == {
    'name': 'test',
    'users': 4,
    'items': 6,
    'interactions': 20,
    'slates': 0,
    'sha256': dataset.sha256,
    'examples': {'train': 4, 'valid': 4, 'test': 8},
    'example_users': {'train': 4, 'valid': 4, 'test': 4},
    'retriever_interactions': 4,
    'out_of_order': 0,
    'duplicates': 1,
    'below_core_users': 0,
    'below_core_items': 0,
    'below_core_interactions': 0,
    'repeats': 0,
    'dropped_slates': 0,
    'untitled': 0,
  }


def test_what_became_of_the_rows_is_told(config, tmp_path, caplog):
  caplog.set_level(logging.INFO)
  with open(f'{config.data.dir}/interactions.csv', 'a') as file:
    file.write(''.join(f'v{u},i0,1\n' for u in range(3)))
  config.data.core = 2
  data.run(config, tmp_path / 'run')
  assert 'Filtered: 4 of 7 users, 6 of 6 items and 20 of 23' in caplog.text
  assert '1 repeated rows were dropped' in caplog.text
  assert '8 positions of 4 users to test' in caplog.text
  warned = [r.message for r in caplog.records if r.levelname == 'WARNING']
  assert any('3 of 7 users (43%)' in m and 'data.core' in m for m in warned)


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
