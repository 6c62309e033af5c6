"""Durable small files: a reader sees the old content or the new, never half."""

import io
import json
import os
import pathlib
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

# How a pointer of git-lfs begins: what `git clone` leaves without git-lfs.
_POINTER = b'version https://git-lfs.github.com/spec/'


def is_plain_name(name: str) -> bool:
  """Returns whether a name that a file brought stays inside its folder."""
  return name not in ('', '..') and pathlib.PurePath(name).name == name


def atomic_write(path: pathlib.Path, content: bytes | str) -> None:
  """Replaces the file at `path` by `content` in one step."""
  if isinstance(content, str):
    content = content.encode()
  # Machines that share a file system may have processes of one number.
  writer = f'{socket.gethostname()}.{os.getpid()}'
  temporary = path.with_name(f'.{path.name}.{writer}.tmp')
  with temporary.open('wb') as stream:
    stream.write(content)
    stream.flush()
    os.fsync(stream.fileno())
  os.replace(temporary, path)


def atomic_savez(path: pathlib.Path, **arrays: np.ndarray) -> None:
  """Writes arrays as `.npz` in one step."""
  stream = io.BytesIO()
  np.savez(stream, **arrays)
  atomic_write(path, stream.getvalue())


def atomic_save(path: pathlib.Path, array: np.ndarray) -> None:
  """Writes one array as `.npy` in one step."""
  stream = io.BytesIO()
  np.save(stream, array)
  atomic_write(path, stream.getvalue())


def read_npz(path: pathlib.Path, *names: str) -> dict[str, np.ndarray]:
  """Reads the arrays of an `.npz`.

  Args:
    path: the file.
    *names: arrays that must be there.

  Returns:
    Arrays by name.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged, or an array is missing.
  """
  remedy = 'restore it from a copy, or make what wrote it again.'
  # Opened here, since NumPy leaves what it cannot read open.
  with path.open('rb') as stream:
    try:
      with np.load(stream, allow_pickle=False) as arrays:
        found = dict(arrays)
    except Exception as error:  # NumPy, zipfile and zlib raise many classes.
      raise ValueError(
        f'{path} is no archive of arrays, or not whole ({error}): {remedy}'
      ) from error
  missing = [name for name in names if name not in found]
  if missing:
    raise ValueError(f'{path} lacks the arrays {missing}: {remedy}')
  return found


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file in one step."""
  atomic_write(path, json.dumps(value, indent=2) + '\n')


def check_fetched(path: pathlib.Path) -> None:
  """Refuses what stands in the place of a file that was not fetched.

  Args:
    path: of the file.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: a folder, a pipe or a device; or the file is empty, or a pointer
      of git-lfs.
  """
  if path.exists() and not path.is_file():
    raise ValueError(
      f'{path} is a folder, a pipe or a device, where a file is read: put the '
      'file there.'
    )
  with path.open('rb') as stream:
    head = stream.read(len(_POINTER))
  if head == _POINTER:
    raise ValueError(
      f'{path} is not the file itself but a pointer of git-lfs: run `git lfs '
      'pull` where it was cloned, or download the file.'
    )
  if not head:
    raise ValueError(f'{path} is empty: fetch it again.')


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file.

  Args:
    path: the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not JSON in UTF-8, with path and place.
  """
  content = path.read_bytes()
  try:
    return json.loads(content)
  except (ValueError, RecursionError) as error:
    check_fetched(path)
    raise ValueError(
      f'{path} is not JSON, or not whole ({error}): fetch or make it again.'
    ) from error


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file that holds an object; see `read_json`.

  Args:
    path: the file.

  Raises:
    ValueError: it is not JSON, or JSON of another kind.
  """
  value = read_json(path)
  if not isinstance(value, dict):
    raise ValueError(
      f'{path} holds a {type(value).__name__}, not an object of JSON: fetch or '
      'make it again.'
    )
  return value


def write_jsonl(path: pathlib.Path, values: Iterable[Any]) -> None:
  """Writes a JSON-lines file in one step."""
  atomic_write(path, ''.join(json.dumps(value) + '\n' for value in values))


def append_jsonl(path: pathlib.Path, value: Any) -> None:
  """Appends one line and waits until it is on disk."""
  extend_jsonl(path, [value])


def extend_jsonl(path: pathlib.Path, values: Iterable[Any]) -> None:
  """Appends lines and waits, once, until they are on disk."""
  text = ''.join(json.dumps(value) + '\n' for value in values)
  with path.open('a') as stream:
    stream.write(text)
    stream.flush()
    os.fsync(stream.fileno())


def drop_cut_line(path: pathlib.Path) -> None:
  """Removes a last line that a crash cut off: one without newline at its end.

  What is appended next would otherwise continue that line.
  """
  with path.open('rb+') as stream:
    content = stream.read()
    whole = content.rfind(b'\n') + 1
    if whole < len(content):
      stream.truncate(whole)
      os.fsync(stream.fileno())


def read_jsonl(path: pathlib.Path) -> Iterator[Any]:
  """Yields the values of a JSON-lines file.

  A last line that a crash cut off (no newline at its end) is left out; any
  other line that does not parse is an error.

  Args:
    path: the file.

  Yields:
    One value a line.

  Raises:
    ValueError: a complete line that is not JSON, with file and line number.
  """
  with path.open('rb') as stream:
    for number, line in enumerate(stream, 1):
      if not line.endswith(b'\n'):
        return
      try:
        yield json.loads(line)
      except (ValueError, RecursionError) as error:
        raise ValueError(
          f'{path}:{number}: not JSON ({error}); fix or remove the line.'
        ) from error
