import os

import numpy as np
import pytest

from gr2_jax import files


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path):
  path = tmp_path / 'a.txt'
  files.atomic_write(path, 'one')
  files.atomic_write(path, b'two')
  assert path.read_text() == 'two'
  assert [p.name for p in tmp_path.iterdir()] == ['a.txt']


def test_machines_with_one_file_system_do_not_share_a_temporary_file(
  tmp_path, monkeypatch
):
  # Processes of one number on two machines write a file at one time.
  path, names = tmp_path / 'a.txt', []
  monkeypatch.setattr(files.os, 'replace', lambda new, _: names.append(new))
  for host in ('one', 'two'):
    monkeypatch.setattr('socket.gethostname', lambda host=host: host)
    files.atomic_write(path, host)
  assert [name.read_text() for name in names] == ['one', 'two']


def test_arrays_and_json_round_trip(tmp_path):
  files.atomic_savez(tmp_path / 'a.npz', x=np.arange(3), y=np.eye(2))
  files.atomic_save(tmp_path / 'a.npy', np.arange(4))
  files.write_json(tmp_path / 'a.json', {'k': [1, None]})
  with np.load(tmp_path / 'a.npz') as loaded:
    np.testing.assert_array_equal(loaded['x'], np.arange(3))
    np.testing.assert_array_equal(loaded['y'], np.eye(2))
  np.testing.assert_array_equal(np.load(tmp_path / 'a.npy'), np.arange(4))
  assert files.read_json(tmp_path / 'a.json') == {'k': [1, None]}


def test_damaged_archives_are_named(tmp_path):
  path = tmp_path / 'a.npz'
  with pytest.raises(FileNotFoundError, match='a.npz'):
    files.read_npz(path)
  np.savez_compressed(path, x=np.arange(999.0))
  assert list(files.read_npz(path, 'x')) == ['x']
  with pytest.raises(ValueError, match=r"a.npz lacks the arrays \['y'\]"):
    files.read_npz(path, 'x', 'y')
  whole = path.read_bytes()
  damaged = whole[:60] + b'\xff' * 9 + whole[69:]
  for content in (b'', b'{}', whole[:-30], whole[30:], damaged):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='a.npz is no archive .*from a copy'):
      files.read_npz(path)


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
def test_pipes_and_folders_are_no_files(tmp_path, make):
  make(tmp_path / 'x.gguf')
  with pytest.raises(ValueError, match='x.gguf is a folder, a pipe or a'):
    files.check_fetched(tmp_path / 'x.gguf')


def test_a_cut_last_line_is_left_out_and_a_bad_line_is_named(tmp_path):
  path = tmp_path / 'a.jsonl'
  files.append_jsonl(path, {'n': 1})
  files.append_jsonl(path, {'n': 2})
  with path.open('a') as stream:
    stream.write('{"n": 3')
  assert list(files.read_jsonl(path)) == [{'n': 1}, {'n': 2}]
  path.write_text('{"n": 1}\nnonsense\n')
  with pytest.raises(ValueError, match='a.jsonl:2'):
    list(files.read_jsonl(path))


def test_a_cut_line_is_dropped_before_more_are_appended(tmp_path):
  path = tmp_path / 'a.jsonl'
  files.extend_jsonl(path, [{'n': 1}, {'n': 2}])
  whole = path.read_bytes()
  files.drop_cut_line(path)
  assert path.read_bytes() == whole
  for cut in range(len(whole) // 2, len(whole)):
    path.write_bytes(whole[:cut])
    files.drop_cut_line(path)
    files.extend_jsonl(path, [{'n': 3}])
    assert list(files.read_jsonl(path)) == [{'n': 1}, {'n': 3}]
  path.write_bytes(b'{')
  files.drop_cut_line(path)
  assert path.read_bytes() == b''
