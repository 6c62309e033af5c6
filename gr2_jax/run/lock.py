"""One run at a time in a workdir: a file with host and process id.

On one host the process id tells whether the holder still runs. To others it
shows a heartbeat: it touches the file again and again. That is judged by one
clock, that of the process that waits, so the clocks of hosts may differ.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from absl import logging

from gr2_jax import processes

NAME = 'LOCK'
# Seconds between two beats, and how long another host sees none before it takes
# the lock over. Our choice: a holder whose threads, disk or network stand still
# may miss eleven.
BEAT = 10.0
PATIENCE = 120.0


class Seen(NamedTuple):
  """A lock as it is found.

  Attributes:
    text: what it says.
    touched: when, in ns of the file system's clock; no other is compared to it.
  """

  text: str
  touched: int


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other runs out of a directory while inside.

  Of several processes the first one holds it for all. A holder that was killed
  leaves its lock behind: the next one on that host takes it over, and one on
  another host after `PATIENCE` seconds without a beat. A holder that stood
  still for so long, and finds that another one has its lock, ends at once.

  Args:
    workdir: the directory, made if missing, and removed again where nothing was
      written to it.

  Raises:
    RuntimeError: another run holds it, with host, process id and remedy.
  """
  path = workdir / NAME
  made = [x for x in (workdir, *workdir.parents) if not x.exists()]
  processes.on_first(_take, path)
  if not processes.is_first():
    yield
    return
  try:
    with _beating(path):
      yield
  finally:
    _give_back(path)
    with contextlib.suppress(OSError):
      for directory in made:
        directory.rmdir()  # Only if it is empty.


def _own() -> str:
  pid = os.getpid()
  names = {'host': socket.gethostname(), 'pid': pid}
  return json.dumps(names | {'started': start_time(pid)}) + '\n'


def _give_back(path: pathlib.Path) -> None:
  # Somebody may have removed it by hand, and another run made its own.
  if path.exists() and path.read_text() == _own():
    path.unlink()


@contextlib.contextmanager
def _beating(path: pathlib.Path) -> Iterator[None]:
  """Touches the lock now and then, in a thread, while inside."""
  own, ended = _own(), threading.Event()

  def beat() -> None:
    while not ended.wait(BEAT):
      try:
        kept = _touch(path, own)
      except OSError as error:
        logging.warning('%s cannot be touched: %s', path, error)
        continue
      if not kept:
        logging.error(
          'Another run has taken over %s, because this one showed no beat for '
          '%.0f seconds: it ends without saving.',
          path,
          PATIENCE,
        )
        logging.flush()
        # An exception in this thread would stop nothing.
        os._exit(1)

  thread = threading.Thread(target=beat, name='beat', daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()


def _touch(path: pathlib.Path, own: str) -> bool:
  """Touches the lock; False where it is another run's."""
  try:
    stream = path.open('r+')
  except FileNotFoundError:
    return True  # Removed by hand: no other run holds it either.
  with stream:
    # No run takes it over between the check and the touch.
    fcntl.flock(stream, fcntl.LOCK_EX)
    if stream.read() == own:
      # No time is given: the file system's clock tells it, not this host's.
      os.utime(stream.fileno())
      return True
    return not _is_at(stream, path)


def _take(path: pathlib.Path) -> None:
  silent = None
  while True:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+') as stream:
      # Of two that find a lock one judges it, and the other then finds the new
      # one.
      fcntl.flock(stream, fcntl.LOCK_EX)
      if not _is_at(stream, path):
        continue  # It was given back in between.
      seen = _read(stream)
      # An empty one was made by a process that was killed in this place.
      if not seen.text or seen == silent or _is_left(path, seen.text):
        stream.truncate(0)
        stream.write(_own())
        stream.flush()
        os.fsync(stream.fileno())
        return
    silent = _watch(path, seen)


def _is_at(stream: TextIO, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(stream.fileno()), path.stat())
  except FileNotFoundError:
    return False


def _read(stream: TextIO) -> Seen:
  stream.seek(0)
  return Seen(stream.read(), os.fstat(stream.fileno()).st_mtime_ns)


def _parse(path: pathlib.Path, text: str) -> tuple[str, int, int | None]:
  """Returns host, process id and start of a lock's holder."""
  try:
    found = json.loads(text)
    return found['host'], found['pid'], found['started']
  except (ValueError, TypeError, KeyError) as error:
    raise RuntimeError(
      f'{path} is no lock that can be read ({error}): if no run writes to '
      f'{path.parent}, remove it.'
    ) from error


def _is_left(path: pathlib.Path, text: str) -> bool:
  """Returns whether a process of this host left it; False for other hosts."""
  host, pid, started = _parse(path, text)
  if host != socket.gethostname():
    return False
  if start_time(pid) == started:
    raise RuntimeError(
      f'Process {pid} on this host runs in {path.parent}: wait for its end, '
      f'end it (kill {pid}), or use another --workdir. If there is no such '
      f'process, remove {path}.'
    )
  logging.warning(
    'Process %d, which held %s, was killed: its lock is taken over.', pid, path
  )
  return True


def _watch(path: pathlib.Path, seen: Seen) -> Seen | None:
  """Waits for a beat of another host's lock.

  Args:
    path: the lock.
    seen: as it was found.

  Returns:
    `seen`, where no beat came for `PATIENCE` seconds; None where the lock was
    given back or taken over in between.

  Raises:
    RuntimeError: a beat came.
  """
  host, pid, _ = _parse(path, seen.text)
  logging.info(
    'Process %d on host %r holds %s: watching for a sign of it, for up to %.0f '
    'seconds.',
    pid,
    host,
    path,
    PATIENCE,
  )
  deadline = time.monotonic() + PATIENCE
  while time.monotonic() < deadline:
    time.sleep(BEAT / 5)
    try:
      with path.open() as stream:
        now = _read(stream)
    except FileNotFoundError:
      return None
    if now.text != seen.text:
      return None
    if now != seen:
      raise RuntimeError(
        f'Process {pid} on host {host!r} runs in {path.parent}: wait for its '
        f'end, end it there (kill {pid}), or use another --workdir.'
      )
  logging.warning(
    'Process %d on host %r, which held %s, showed no sign for %.0f seconds: '
    'its lock is taken over.',
    pid,
    host,
    path,
    PATIENCE,
  )
  return seen


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
