"""One run at a time in a workdir: a file with host and process id."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import TextIO

from absl import logging

from gr2_jax import processes

NAME = 'LOCK'


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other runs out of a directory while inside.

  Of several processes the first one holds it for all. A process that was
  killed leaves its lock behind, and the next one on that host takes it over.

  Args:
    workdir: the directory, made if missing.

  Raises:
    RuntimeError: another run holds it, with host, process id and remedy.
  """
  path = workdir / NAME
  processes.on_first(_take, path)
  try:
    yield
  finally:
    if processes.is_first():
      _give_back(path)


def _own() -> str:
  pid = os.getpid()
  names = {'host': socket.gethostname(), 'pid': pid}
  return json.dumps(names | {'started': start_time(pid)}) + '\n'


def _give_back(path: pathlib.Path) -> None:
  # Somebody may have removed it by hand, and another run made its own.
  if path.exists() and path.read_text() == _own():
    path.unlink()


def _take(path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  while True:
    with path.open('a+') as stream:
      # Of two that find a lock one judges it, and the other then finds the new
      # one.
      fcntl.flock(stream, fcntl.LOCK_EX)
      if not _is_at(stream, path):
        continue  # It was given back in between.
      stream.seek(0)
      text = stream.read()
      # An empty one was made by a process that was killed in this place.
      if text:
        _check_left(path, text)
      stream.truncate(0)
      stream.write(_own())
      stream.flush()
      os.fsync(stream.fileno())
      return


def _is_at(stream: TextIO, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(stream.fileno()), path.stat())
  except FileNotFoundError:
    return False


def _check_left(path: pathlib.Path, text: str) -> None:
  """Returns where a lock was left by a process that is gone."""
  try:
    found = json.loads(text)
    host, pid, started = found['host'], found['pid'], found['started']
  except (ValueError, TypeError, KeyError) as error:
    raise RuntimeError(
      f'{path} is no lock that can be read ({error}): if no run writes to '
      f'{path.parent}, remove it.'
    ) from error
  if host != socket.gethostname():
    raise RuntimeError(
      f'Process {pid} on host {host!r} holds {path}, and whether it still runs '
      f'cannot be seen from {socket.gethostname()!r}: wait for its end, or use '
      f'another --workdir. If it is gone, remove {path}.'
    )
  if start_time(pid) == started:
    raise RuntimeError(
      f'Process {pid} on this host runs in {path.parent}: wait for its end, '
      f'end it (kill {pid}), or use another --workdir. If there is no such '
      f'process, remove {path}.'
    )
  logging.warning(
    'Process %d, which held %s, was killed: its lock is taken over.', pid, path
  )


def start_time(pid: int) -> int | None:
  """Returns when a process of this host started; None where it is gone.

  Args:
    pid: its id, which a later process may have got.

  Returns:
    Ticks of the clock since the host booted, as /proc holds them; on a system
    without /proc None, and a lock is never taken over there.
  """
  try:
    text = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except (FileNotFoundError, ProcessLookupError):
    return None
  # The name of the program, in brackets, may hold anything.
  state, *fields = text.rpartition(')')[2].split()
  return None if state in 'ZX' else int(fields[18])
