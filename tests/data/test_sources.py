import os
import pathlib

import pytest

from gr2_jax import assets
from gr2_jax.data import clean, generic, sources


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'kind': 'movies'}, "data.kind is 'movies'; use one of"),
    ({'kind': 'generic', 'name': 'a/b', 'dir': 'x'}, "data.name is 'a/b'"),
    ({'kind': 'ml-100k', 'core': -1}, 'data.core is -1'),
    ({'kind': 'generic'}, 'pass --config.data.dir=FOLDER'),
    ({'kind': 'amazon2014'}, 'pass --config.data.dir=FOLDER'),
  ],
)
def test_bad_configs_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    sources.SourceConfig(**{'name': 'test', **fields})


@pytest.mark.parametrize(
  ('kind', 'files'),
  [
    ('ml-1m', {'movies.dat': '1::Toy Story::Comedy\n', 'ratings.dat': '\n'}),
    (
      'tiger',
      {'X.inter.json': '{"0": []}', 'X.item.json': '{"0": {"title": "Rose"}}'},
    ),
  ],
)
def test_files_without_interactions_are_named(tmp_path, kind, files):
  for name, content in files.items():
    (tmp_path / name).write_text(content)
  message = f'^{tmp_path}: no interactions in .*{list(files)[0]}'
  with pytest.raises(ValueError, match=message):
    sources.read(sources.SourceConfig('test', kind, str(tmp_path), core=0))


def test_the_fingerprint_is_of_the_raw_files(tmp_path):
  cfg = sources.SourceConfig('test', 'generic', str(tmp_path))
  (tmp_path / 'items.jsonl').write_text('{}\n')
  with pytest.raises(FileNotFoundError, match='no file of interactions'):
    sources.fingerprint(cfg)
  (tmp_path / 'interactions.csv').write_text('a\n')
  (tmp_path / 'notes.txt').write_text('a\n')
  before = sources.fingerprint(cfg)
  (tmp_path / 'notes.txt').write_text('b\n')
  assert sources.fingerprint(cfg) == before
  (tmp_path / 'interactions.csv').write_text('b\n')
  assert sources.fingerprint(cfg) != before


def test_the_home_directory_and_relative_folders(tmp_path, monkeypatch):
  (tmp_path / 'raw').mkdir()
  (tmp_path / 'raw' / 'items.jsonl').write_text('{}\n')
  (tmp_path / 'raw' / 'interactions.csv').write_text('a\n')
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  found = {
    sources.fingerprint(sources.SourceConfig('test', 'generic', folder))
    for folder in (str(tmp_path / 'raw'), 'raw', '~/raw')
  }
  assert len(found) == 1


def test_the_fingerprint_does_not_wait_for_a_pipe(tmp_path):
  for name in ('items.csv', 'interactions.csv'):
    os.mkfifo(tmp_path / name)
  cfg = sources.SourceConfig('test', 'generic', str(tmp_path))
  with pytest.raises(ValueError, match='items.csv: a pipe or a device'):
    sources.fingerprint(cfg)


def test_the_fingerprint_of_an_asset_needs_no_download():
  cfg = sources.SourceConfig('ml', 'ml-100k')
  assert sources.fingerprint(cfg) == assets.ASSETS['ml-100k'].sha256
  with pytest.raises(FileNotFoundError, match='absent: no such folder; set'):
    sources.fingerprint(sources.SourceConfig('ml', 'ml-100k', 'absent'))


@pytest.mark.slow
def test_beauty_has_the_counts_of_the_literature():
  root = pathlib.Path(__file__).resolve().parents[3]
  folder = root / 'shared' / 'data' / 'amazon_beauty_2014'
  dataset = clean.clean('beauty', generic.read(folder), 5)
  assert (dataset.num_users, dataset.num_items) == (22_363, 12_101)
  assert len(dataset.flat) == 198_502
  assert dataset.lengths.min() == 5
  assert dataset.counts['below_core_interactions'] == 0
