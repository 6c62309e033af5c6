"""Several processes that answer behind one port, on CPUs.

    code = start(4, listener)  # None in each of the four

The first process only watches: it passes SIGTERM and Ctrl-C on, and ends when
all workers have ended. They share the socket, and the kernel gives a connection
to one that accepts. Nothing here needs JAX, which a process must not have
started when it forks.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

from absl import logging

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Where prometheus_client sums up the numbers of several processes.
_METRICS = 'PROMETHEUS_MULTIPROC_DIR'


def start(count: int, listener: socket.socket) -> int | None:
  """Forks.

  If a worker ends by itself, the others are drained and the exit code is not 0:
  the supervisor of the command starts it again.

  Args:
    count: of workers.
    listener: where they will accept.

  Returns:
    None in the workers, at once. Where it was called, the first exit code of a
    worker that is not 0, when all have ended.

  Raises:
    ValueError: JAX would compute on something else than CPUs.
  """
  _check_platform(count)
  with _metrics_directory():
    return _watch(count, listener)


def _check_platform(count: int) -> None:
  """Asks a process of its own, so that this one can fork."""
  code = 'import jax; print(jax.default_backend())'
  asked = [sys.executable, '-c', code]
  done = subprocess.run(asked, capture_output=True, text=True)
  said = (done.stdout or done.stderr).strip().splitlines()
  platform = said[-1] if said else f'exit code {done.returncode}'
  if platform != 'cpu':
    raise ValueError(
      f'--workers={count} takes CPUs, and JAX finds {platform!r}: an '
      'accelerator belongs to one process. Start replicas '
      '(gr2_jax/serve/README.md), or set JAX_PLATFORMS=cpu.'
    )


@contextlib.contextmanager
def _metrics_directory() -> Iterator[None]:
  """Names a directory for the numbers; the watching process removes it."""
  parent, made = os.getpid(), tempfile.mkdtemp(prefix='gr2_metrics_')
  os.environ[_METRICS] = made
  try:
    yield
  finally:
    if os.getpid() == parent:
      shutil.rmtree(made)


def _watch(count: int, listener: socket.socket) -> int | None:
  """Forks, and waits for the workers; None in a worker, else the exit code."""
  alive, parent = os.pipe()
  stopping: list[int] = []
  workers: dict[int, int] = {}
  # No signal may come before all know what to do with it.
  signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
  for place in range(count):
    if not (pid := os.fork()):
      os.close(parent)
      _settle(place, count, alive)
      return None
    workers[pid] = place
  os.close(alive)
  listener.close()

  def stop(number: int, frame: object = None) -> None:
    stopping.append(number)
    for pid in workers:
      os.kill(pid, signal.SIGTERM)

  for number in _SIGNALS:
    signal.signal(number, stop)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
  codes = []
  while workers:
    # It stays a zombie, whom a signal cannot miss, until it is struck off.
    pid = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid
    place = workers.pop(pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not stopping:
      logging.error('Worker %d ended (exit code %d): all end.', place, code)
      stop(0)
      code = code or 1
    codes.append(128 - code if code < 0 else code)
  return next(filter(None, codes), 0)


def _settle(place: int, count: int, alive: int) -> None:
  """Makes a process a worker.

  Ctrl-C in a terminal reaches the watching process alone. Where there are
  cores for all, each computes on its share of them.
  """
  os.setpgrp()
  if hasattr(os, 'sched_getaffinity'):  # Linux.
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= count:
      os.sched_setaffinity(0, cores[place::count])

  def follow() -> None:
    """Drains this worker when the watching process is gone."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)

  for number in _SIGNALS:
    signal.signal(number, signal.SIG_DFL)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
  threading.Thread(target=follow, daemon=True).start()
