"""The fast tier ends, with an error, when a worker dies or a test hangs."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIES = """\
import os, signal

def test_before():
  pass

def test_dies():
  os.kill(os.getpid(), signal.SIGKILL)

def test_behind():
  pass
"""
WAITS = """\
import time

def test_waits():
  time.sleep(3600)
"""
PASSES = """\
def test_passes():
  pass
"""
# A worker that dies when its tests are done.
DIES_LAST = """\
import os, signal

def pytest_sessionfinish():
  if 'PYTEST_XDIST_WORKER' in os.environ:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run(tmp_path):
  """Runs the tests of some files as launch/test.sh runs the tier."""

  def run(files, *options):
    for name, text in files.items():
      (tmp_path / name).write_text(text)
    (tmp_path / 'pytest.ini').write_text('[pytest]\n')
    env = {k: v for k, v in os.environ.items() if not k.startswith('PYTEST_')}
    return subprocess.run(
      [
        *(sys.executable, '-m', 'pytest', '-p', 'tests.workers'),
        *(f'@{ROOT / "tests/parallel.txt"}', '--numprocesses=2', *options),
      ],
      cwd=tmp_path,
      env={**env, 'PYTHONPATH': str(ROOT)},
      capture_output=True,
      text=True,
      timeout=600,
    )

  return run


def test_a_dead_worker_ends_the_run(run):
  done = run({'test_dies.py': DIES, 'test_waits.py': WAITS})
  assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
  assert 'A worker died in test_dies.py::test_dies.' in done.stdout


def test_a_hanging_test_ends_the_run(run):
  limit = '--override-ini=faulthandler_timeout=1'
  done = run({'test_waits.py': WAITS}, limit)
  assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
  assert 'A worker died in test_waits.py::test_waits.' in done.stdout
  assert 'in test_waits\n' in done.stderr, 'where it hung'


def test_a_worker_that_dies_at_the_end_fails_the_run(run):
  done = run({'test_passes.py': PASSES, 'conftest.py': DIES_LAST})
  assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout


def test_a_run_without_faults_passes(run):
  done = run({'test_passes.py': PASSES})
  assert done.returncode == pytest.ExitCode.OK, done.stdout


def test_the_tier_is_run_so():
  script = (ROOT / 'launch' / 'test.sh').read_text()
  assert 'set -- @tests/parallel.txt' in script
