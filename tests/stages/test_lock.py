"""One run at a time: two at once, and locks that were left behind."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from gr2_jax.stages import lock

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Takes the lock as a run does, says so, and stays.
_HOLD = """
import sys, time, pathlib
from gr2_jax.stages import lock
from gr2_jax.train import preemption
preemption.listen()
with lock.hold(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
  """Another process that holds the lock of `tmp_path`."""
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLD, str(tmp_path)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.communicate()


def _left(tmp_path, **changes):
  found = {
    'host': socket.gethostname(),
    'pid': os.getpid(),
    'started': lock.start_time(os.getpid()),
  }
  (tmp_path / lock.NAME).write_text(json.dumps(found | changes))


def _take(tmp_path):
  with lock.hold(tmp_path):
    return json.loads((tmp_path / lock.NAME).read_text())


def test_it_is_given_back_at_the_end_and_after_errors(tmp_path):
  workdir = tmp_path / 'made'
  assert _take(workdir)['pid'] == os.getpid()
  assert not list(workdir.iterdir())
  with pytest.raises(KeyError), lock.hold(workdir):
    raise KeyError
  assert not list(workdir.iterdir())


def test_a_second_run_is_kept_out_until_the_first_is_killed(
  holder, tmp_path, caplog
):
  with pytest.raises(RuntimeError, match=f'Process {holder.pid} on this host'):
    _take(tmp_path)
  held = json.loads((tmp_path / lock.NAME).read_text())
  assert held['pid'] == holder.pid
  # Not waited for: a process that is gone may still have an entry.
  holder.send_signal(signal.SIGKILL)
  deadline = time.monotonic() + 60
  while lock.start_time(holder.pid) is not None:
    assert time.monotonic() < deadline
    time.sleep(0.01)
  assert _take(tmp_path)['pid'] == os.getpid()
  assert f'Process {holder.pid}' in caplog.text and 'taken over' in caplog.text


def test_a_terminated_run_gives_it_back(holder, tmp_path):
  holder.terminate()
  assert holder.wait(60) == 75
  assert not (tmp_path / lock.NAME).exists()


def test_a_process_id_that_another_process_got_is_recognised(tmp_path):
  _left(tmp_path, started=lock.start_time(os.getpid()) - 1)
  assert _take(tmp_path)['started'] == lock.start_time(os.getpid())
  _left(tmp_path)
  with pytest.raises(RuntimeError, match='wait for its end'):
    _take(tmp_path)


def test_the_lock_of_another_run_is_not_given_back(tmp_path):
  with lock.hold(tmp_path):
    _left(tmp_path, host='elsewhere')
  assert (tmp_path / lock.NAME).exists()
  with pytest.raises(RuntimeError), lock.hold(tmp_path):
    raise AssertionError
  (tmp_path / lock.NAME).unlink()
  with lock.hold(tmp_path):
    (tmp_path / lock.NAME).unlink()


def test_the_lock_of_another_host_is_refused_with_the_remedy(tmp_path):
  _left(tmp_path, host='elsewhere', pid=7)
  with pytest.raises(RuntimeError, match="7 on host 'elsewhere' .* remove"):
    _take(tmp_path)


def test_a_lock_that_cannot_be_read_is_named(tmp_path):
  (tmp_path / lock.NAME).write_text('{"host": ')
  with pytest.raises(RuntimeError, match='LOCK is no lock .* remove it'):
    _take(tmp_path)
  # Killed between making and writing it.
  (tmp_path / lock.NAME).write_text('')
  assert _take(tmp_path)['pid'] == os.getpid()


def test_of_many_at_once_one_at_a_time_holds_it(tmp_path):
  """Each adds one to a number, which needs that no other does."""
  program = """
import sys, pathlib, time
from gr2_jax.stages import lock
workdir, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
done = 0
while done < 5:
  try:
    with lock.hold(workdir):
      number = int(count.read_text())
      time.sleep(0.002)
      count.write_text(str(number + 1))
      done += 1
  except RuntimeError:
    time.sleep(0.001)
"""
  count = tmp_path / 'count'
  count.write_text('0')
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', program, str(tmp_path / 'run'), str(count)],
      cwd=ROOT,
    )
    for _ in range(3)
  ]
  assert [process.wait(300) for process in processes] == [0, 0, 0]
  assert count.read_text() == '15'
