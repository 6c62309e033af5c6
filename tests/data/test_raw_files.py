import gzip
import os

import pytest

from gr2_jax.data import raw_files


def _write(folder, content, name='x.json'):
  (folder / name).write_bytes(content)
  return folder / name


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    # Without a time: the workers of a run must see one name of this case.
    (gzip.compress(b'{}', mtime=0), 'gzip archive; .*end in .gz'),
    (b'PK\x03\x04 xlsx', 'zip archive or an Excel sheet; unpack it'),
    (b'PAR1....PAR1', 'Parquet file; let its name end in .parquet'),
    (b'\x28\xb5\x2f\xfd...', 'zstd archive; unpack it'),
    (b'\xef\xbb\xbf\n<!DOCTYPE html>\n<html>', 'a page of HTML, .* download'),
    (b'<html><body>502 Bad Gateway', 'a page of HTML, as of an error'),
    ('{"a": 1}\n'.encode('utf-16'), 'a text in UTF-16.*save it as UTF-8'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'pointer .*git lfs pull'),
  ],
)
def test_files_that_are_another_thing(tmp_path, content, message):
  path = _write(tmp_path, content)
  with pytest.raises(ValueError, match=f'x.json:1: .*{message}'):
    list(raw_files.lines(path, latin=True))


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'x.json')
  with pytest.raises(ValueError, match='x.json: a pipe or a device, where a'):
    list(raw_files.lines(tmp_path / 'x.json'))


def test_an_archive_that_is_none(tmp_path):
  path = _write(tmp_path, b'{"a": 1}\n', 'x.json.gz')
  with pytest.raises(ValueError, match='x.json.gz:1: not a gzip archive'):
    list(raw_files.lines(path))


def test_an_archive_that_is_cut_off(tmp_path):
  lines = b''.join(b'%d\n' % (i * 7919) for i in range(9999))
  path = _write(tmp_path, gzip.compress(lines)[:-20], 'x.json.gz')
  message = 'x.json.gz:[0-9]+: cannot be read .*fetch it again'
  with pytest.raises(ValueError, match=message):
    list(raw_files.lines(path))


def test_lines_in_latin_1(tmp_path):
  path = _write(tmp_path, 'caf\u00e9\n'.encode() + b'caf\xe9\r\nx')
  assert list(raw_files.lines(path, latin=True)) == ['caf\u00e9'] * 2 + ['x']
  with pytest.raises(ValueError, match='x.json:2: byte 0xe9 .* not UTF-8'):
    list(raw_files.lines(path))


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'{"a": 1,\n "b": }', 'x.json:2: not JSON .*Expecting value at char'),
    (b'{"a": 1,\n "b": [1,\n2', 'x.json:3: not JSON .*fetch the file again'),
    (b'{"a": 1,\n "a": 2}', "x.json:1: not JSON .the key 'a' stands twice"),
    (b'[1]', 'x.json:1: list of JSON, not one object'),
    (b'{}', 'x.json:1: dict of JSON, not one object with entries'),
    (b'{"a": ' + b'[' * 200_000, 'x.json:1: not JSON .*recursion'),
  ],
)
def test_json_that_is_no_object(tmp_path, content, message):
  with pytest.raises(ValueError, match=message):
    list(raw_files.json_entries(_write(tmp_path, content)))


def test_entries_have_their_lines(tmp_path):
  path = _write(tmp_path, b'{\n"a": {"b": 1},\n\n"b": 2, "c": 3}')
  assert list(raw_files.json_entries(path)) == [
    (f'{path}:2', 'a', {'b': 1}),
    (f'{path}:4', 'b', 2),
    (f'{path}:4', 'c', 3),
  ]


def test_one_file_of_a_pattern(tmp_path):
  _write(tmp_path, b'x', 'a.item.gz')
  assert raw_files.one(tmp_path, '*.item').name == 'a.item.gz'
  _write(tmp_path, b'x', 'b.item')
  with pytest.raises(FileNotFoundError, match='2 files match .*exactly one'):
    raw_files.one(tmp_path, '*.item')
  with pytest.raises(FileNotFoundError, match='no such folder; set config'):
    raw_files.one(tmp_path / 'none', '*.item')
