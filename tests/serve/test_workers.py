"""Processes that watch and are watched, without a server in them."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A worker says that it is there, and ends as its signal tells.
CODE = """
import os, signal, socket, sys
from gr2_jax.serve import workers
workers._check_platform = lambda count: None
code = workers.start(3, socket.socket())
if code is None:
  signal.signal(signal.SIGTERM, lambda number, frame: sys.exit({code}))
  cores = ','.join(map(str, sorted(os.sched_getaffinity(0))))
  os.write(1, f'{{os.getpid()}} {{cores}}\\n'.encode())
  signal.pause()
sys.exit(code)
"""


@contextlib.contextmanager
def _started(tmp_path, code=0):
  """Yields the process that watches, and the cores of workers by their ids."""
  with subprocess.Popen(
    [sys.executable, '-c', CODE.format(code=code)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env={**os.environ, 'TMPDIR': str(tmp_path)},
  ) as process:
    try:
      lines = [process.stdout.readline().split() for _ in range(3)]
      yield process, {int(pid): cores.split(',') for pid, cores in lines}
    finally:
      process.kill()


def _run(pid):
  """Says whether a process is there, and no zombie."""
  with contextlib.suppress(FileNotFoundError, ProcessLookupError):
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2]
    return state.split()[0] != 'Z'
  return False


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('code', [0, 75])
def test_a_signal_reaches_all(tmp_path, number, code):
  with _started(tmp_path, code) as (process, workers):
    assert len(workers) == 3 and list(tmp_path.glob('gr2_metrics_*'))
    process.send_signal(number)
    assert process.wait(60) == code
    assert process.stderr.read() == ''
  assert not any(map(_run, workers)) and not list(tmp_path.iterdir())


def test_a_worker_that_ends_ends_all(tmp_path):
  with _started(tmp_path) as (process, workers):
    os.kill(next(iter(workers)), signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert 'ended (exit code -9): all end.' in process.stderr.read()
  assert not any(map(_run, workers))


def test_a_worker_that_ends_well_is_an_error_too(tmp_path):
  with _started(tmp_path) as (process, workers):
    os.kill(next(iter(workers)), signal.SIGTERM)
    assert process.wait(60) == 1
  assert not any(map(_run, workers))


def test_workers_end_with_the_process_that_watches_them(tmp_path):
  with _started(tmp_path) as (process, workers):
    process.kill()
    until = time.monotonic() + 60
    while any(map(_run, workers)):
      assert time.monotonic() < until
      time.sleep(0.01)


def test_cores_are_shared_out(tmp_path):
  there = sorted(os.sched_getaffinity(0))
  with _started(tmp_path) as (_, workers):
    given = sorted(int(core) for cores in workers.values() for core in cores)
  assert given == (there if len(there) >= 3 else sorted(there * 3))
