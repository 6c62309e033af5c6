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

from gr2_jax.run import lock

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Takes the lock as a run does, says so, and stays.
_HOLD = """
import sys, time, pathlib
from gr2_jax.run import lock
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
  assert _take(tmp_path)['pid'] == os.getpid()
  assert not list(tmp_path.iterdir())
  with pytest.raises(KeyError), lock.hold(tmp_path):
    raise KeyError
  assert not list(tmp_path.iterdir())


def test_a_directory_in_which_nothing_was_written_is_removed_again(tmp_path):
  new = tmp_path / 'a' / 'b'
  with pytest.raises(KeyError), lock.hold(new):
    raise KeyError
  assert not list(tmp_path.iterdir())
  (tmp_path / 'a').mkdir()
  _take(new)
  assert not list((tmp_path / 'a').iterdir())
  with lock.hold(new):
    (new / 'config.json').touch()
  assert [x.name for x in new.iterdir()] == ['config.json']


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
  (tmp_path / lock.NAME).unlink()
  with lock.hold(tmp_path):
    (tmp_path / lock.NAME).unlink()


class _Clock:
  """A clock that only `sleep` moves; `events` are called at their seconds."""

  def __init__(self, events=()):
    self.now, self.events = 1000.0, sorted(events, key=lambda event: event[0])
    self.begin = self.now

  def monotonic(self):
    return self.now

  def sleep(self, seconds):
    self.now += seconds
    while self.events and self.events[0][0] <= self.waited:
      self.events.pop(0)[1]()

  @property
  def waited(self):
    return self.now - self.begin


@pytest.fixture
def clock(monkeypatch):
  """Sets the clock of `lock`."""

  def use(*events):
    found = _Clock(events)
    monkeypatch.setattr(lock, 'time', found)
    return found

  return use


def _beat(tmp_path, when):
  """Touches the lock, by a clock of its own."""
  return lambda: os.utime(tmp_path / lock.NAME, (when, when))


@pytest.mark.parametrize('skew', [-3e6, 0, 3e6])
def test_another_host_that_shows_beats_is_refused_with_the_remedy(
  tmp_path, clock, skew
):
  _left(tmp_path, host='elsewhere', pid=7)
  now = time.time() + skew
  _beat(tmp_path, now)()
  # The last one that comes in time.
  watch = clock((lock.PATIENCE - 1, _beat(tmp_path, now + lock.PATIENCE)))
  with pytest.raises(
    RuntimeError, match=r"7 on host 'elsewhere' runs in .*kill 7.*--workdir"
  ):
    _take(tmp_path)
  assert watch.waited <= lock.PATIENCE
  assert json.loads((tmp_path / lock.NAME).read_text())['pid'] == 7


@pytest.mark.parametrize('skew', [-3e6, 0, 3e6])
def test_the_lock_of_another_host_without_beats_is_taken_over(
  tmp_path, clock, caplog, skew
):
  _left(tmp_path, host='elsewhere', pid=7)
  _beat(tmp_path, time.time() + skew)()
  watch = clock()
  assert _take(tmp_path)['pid'] == os.getpid()
  assert lock.PATIENCE <= watch.waited <= lock.PATIENCE + lock.BEAT
  assert "7 on host 'elsewhere'" in caplog.text and 'taken over' in caplog.text
  assert not (tmp_path / lock.NAME).exists()


def test_a_beat_at_the_last_moment_counts(tmp_path, monkeypatch, clock):
  """It comes between the end of the watch and the taking over."""
  _left(tmp_path, host='elsewhere', pid=7)
  clock()
  watch, found = lock._watch, []

  def late(path, seen):
    found.append(watch(path, seen))
    _beat(tmp_path, 1.0)()
    clock((5, _beat(tmp_path, 2.0)))
    return found[-1]

  monkeypatch.setattr(lock, '_watch', late)
  with pytest.raises(RuntimeError, match="'elsewhere' runs in"):
    _take(tmp_path)
  assert len(found) == 1


def test_a_lock_that_is_given_back_meanwhile_is_free(tmp_path, clock):
  _left(tmp_path, host='elsewhere')
  watch = clock((5, (tmp_path / lock.NAME).unlink))
  assert _take(tmp_path)['pid'] == os.getpid()
  assert watch.waited < 10


def test_a_lock_that_changes_hands_is_watched_from_the_beginning(
  tmp_path, clock
):
  _left(tmp_path, host='elsewhere')
  hand_over = lambda: _left(tmp_path, host='third')
  watch = clock((lock.PATIENCE / 2, hand_over))
  assert _take(tmp_path)['pid'] == os.getpid()
  assert watch.waited >= 1.5 * lock.PATIENCE


# A run on a host of its own, with quick beats: says what happened to it.
_ON_HOST = """
import socket, sys, time, pathlib
from gr2_jax.run import lock
socket.gethostname = lambda: sys.argv[2]
lock.BEAT, lock.PATIENCE = 0.05, 5.0
try:
  with lock.hold(pathlib.Path(sys.argv[1])):
    print('held', flush=True)
    sys.stdin.read()
except RuntimeError as error:
  print(error, flush=True)
"""


def _start(tmp_path, host):
  return subprocess.Popen(
    [sys.executable, '-c', _ON_HOST, str(tmp_path), host],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_of_several_hosts_that_find_a_stale_lock_one_takes_it(tmp_path):
  _left(tmp_path, host='gone')
  hosts = ['a', 'b', 'c']
  runs = {host: _start(tmp_path, host) for host in hosts}
  first = {host: run.stdout.readline() for host, run in runs.items()}
  (winner,) = [host for host in hosts if first[host] == 'held\n']
  for host in hosts:
    if host != winner:
      assert f'on host {winner!r} runs in' in first[host]
  held = json.loads((tmp_path / lock.NAME).read_text())
  assert (held['host'], held['pid']) == (winner, runs[winner].pid)
  for run in runs.values():
    run.communicate(timeout=60)
    assert run.returncode == 0
  assert not (tmp_path / lock.NAME).exists()


def test_a_holder_that_lost_its_lock_ends_at_once(tmp_path):
  """It stood still for so long that another host took the lock over."""
  run = _start(tmp_path, 'a')
  assert run.stdout.readline() == 'held\n'
  _left(tmp_path, host='b')
  assert run.wait(60) == 1
  _, said = run.communicate()
  assert 'Another run has taken over' in said
  assert json.loads((tmp_path / lock.NAME).read_text())['host'] == 'b'


def test_a_holder_whose_lock_was_removed_by_hand_goes_on(tmp_path):
  run = _start(tmp_path, 'a')
  assert run.stdout.readline() == 'held\n'
  (tmp_path / lock.NAME).unlink()
  time.sleep(0.3)
  assert run.poll() is None
  run.communicate(timeout=60)
  assert run.returncode == 0


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
from gr2_jax.run import lock
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
