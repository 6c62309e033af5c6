"""Mistakes in flags of a config end in one message; all can be printed."""

import pathlib
import signal
import subprocess
import sys

import pytest
from absl import flags

from gr2_jax.teacher import asker, client
from launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = '--config=configs/tiny.py'


def _run(command, *arguments):
  return subprocess.run(
    [sys.executable, '-m', f'launch.{command}', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(
  ('command', 'arguments', 'message'),
  [
    (
      'pipeline',
      (CONFIG, '--workdir=/nowhere', '--config.rl.grup_size=3'),
      'no setting --config.rl.grup_size: did you mean --config.rl.group_size?',
    ),
    (
      'sweep',
      (
        '--config',
        'configs/reward_world.py',
        '--workdir=/nowhere',
        '--noconfig.base.rl.condtional',
      ),
      'did you mean --config.base.rl.conditional?',
    ),
    (
      'traces',
      (CONFIG, '--workdir=/nowhere', '--config.seed.x=3'),
      "--config.seed is a value and has no setting 'x'.",
    ),
  ],
)
def test_an_unknown_setting_is_one_message(command, arguments, message):
  found = _run(command, *arguments)
  assert found.returncode == 1 and found.stdout == ''
  assert message in found.stderr.splitlines()[-1]
  assert 'Traceback' not in found.stderr


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      ('--config=configs/tinny.py', '--config.rl.steps=3'),
      'configs/tinny.py: no such config file;',
    ),
    (
      ('--config=configs/tiny.py:sed=1', '--workdir=/nowhere'),
      "Unknown switch 'sed' after the colon; known:",
    ),
    (
      (CONFIG, '--workdir=/nowhere', '--config.rl.steps=many'),
      'flag --config.rl.steps=many:',
    ),
    (
      (CONFIG, '--workdir=/nowhere', '--stage=sid'),
      'Unknown command line flag',
    ),
  ],
)
def test_a_wrong_flag_is_one_line(arguments, message):
  found = _run('pipeline', *arguments)
  assert found.returncode == 1 and found.stdout == ''
  (line,) = found.stderr.splitlines()
  assert line.startswith(message)


def test_all_settings_are_printed_without_a_workdir():
  found = _run('pipeline', CONFIG, '--describe', '--config.rl.alpha=0.5')
  assert found.returncode == 0, found.stderr
  lines = found.stdout.splitlines()
  assert 'rl.alpha = 0.5 (default 0.02) [N] [G]' in lines
  assert max(map(len, lines)) <= 100


def test_a_run_needs_a_workdir_and_sound_settings(tmp_path):
  found = _run('pipeline', CONFIG)
  assert found.returncode == 1
  assert 'Give --workdir, the directory of the run.' in found.stderr
  workdir = tmp_path / 'run'
  found = _run(
    'pipeline', CONFIG, f'--workdir={workdir}', '--config.rl.group_size=1'
  )
  assert found.returncode == 1
  assert 'rl.group_size = 1 must be at least 2' in found.stderr
  assert not workdir.exists()


def test_a_mistake_is_one_message_and_a_traceback_only_when_asked(tmp_path):
  asked = (CONFIG, f'--workdir={tmp_path}/run', '--config.rl.group_size=1')
  found = _run('pipeline', *asked)
  assert found.returncode == 1 and 'Traceback' not in found.stderr
  last = found.stderr.splitlines()[-1]
  assert last.startswith('rl.group_size = 1 must be at least 2')
  assert last.endswith('(--debug shows where.)')
  assert not (tmp_path / 'run').exists()
  found = _run('pipeline', *asked, '--debug')
  assert 'Traceback' in found.stderr
  # Without a flag `config`: what is missing is named alike.
  found = _run('export', f'--workdir={tmp_path}', f'--output={tmp_path}/out')
  assert found.returncode == 1 and 'Traceback' not in found.stderr
  assert 'No run in' in found.stderr.splitlines()[-1]


@pytest.mark.parametrize(
  ('error', 'told'),
  [
    (asker.FirstAnswersError, True),
    (client.BudgetError, True),
    (RecursionError, False),
  ],
)
def test_runtime_errors_of_ours_are_one_message(error, told):
  def main(argv):
    raise error('Fix it.')

  flags.FLAGS.mark_as_parsed()
  with pytest.raises(SystemExit if told else error, match='Fix it.'):
    cli._report(main, [])


# It never comes to `start.set_up`, as a command that still imports JAX.
_IMPORTING = """
import time
from launch import cli

def main(argv):
  print('busy', flush=True)
  time.sleep(600)

cli.run(main)
"""
# Its devices are busy for ever, and a process reads data for it. It shows bars.
_BUSY = """
import multiprocessing, threading, time
from launch import cli, start

def main(argv):
  start.set_up()
  import jax
  child = multiprocessing.get_context('fork').Process(
    target=time.sleep, args=(600,), daemon=True
  )
  child.start()
  wait = lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: 3 - 1 / x, x)
  threading.Thread(target=jax.jit(wait), args=(2.0,), daemon=True).start()
  time.sleep(1)
  from gr2_jax import progress
  with progress.bar(total=2, desc='outer'), progress.bar(total=2, desc='inner'):
    print('busy', flush=True)
    time.sleep(600)

cli.run(main)
"""


def _start(*options):
  """Starts Python on code that says when it is busy, and waits for that."""
  process = subprocess.Popen(
    [sys.executable, *options],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'busy\n'
  return process


@pytest.mark.parametrize(
  ('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_a_signal_before_anything_runs_ends_at_once(number, code):
  process = _start('-c', _IMPORTING)
  process.send_signal(number)
  _, said = process.communicate(timeout=120)
  assert (process.returncode, said) == (code, '')


@pytest.mark.parametrize(
  ('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_a_signal_ends_a_busy_command_at_once_and_quietly(number, code):
  process = _start('-W', 'ignore', '-c', _BUSY)
  process.send_signal(number)
  # The child has the pipes, too: their end is its end.
  _, said = process.communicate(timeout=120)
  assert process.returncode == code
  *bars, line = filter(None, said.splitlines())
  assert {bar.partition(':')[0] for bar in bars} == {'outer', 'inner'}
  name = 'SIGTERM' if code == 75 else 'Ctrl-C'
  assert line.startswith('W') and line.endswith(
    f'] {name}: ending with exit code {code}. The same command continues.'
  )
