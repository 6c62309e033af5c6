"""SIGKILL at any point, then the same command: the same report."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import world

from gr2_jax.stages import road

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def _command(data, workdir):
  settings = {
    'data.name': 'world',
    'data.kind': 'generic',
    'data.dir': data,
    'sid.embeddings': data / 'embeddings.npy',
    'text.pieces': 400,
    'text.prompt.max_tokens': 352,
    'sft.train.length': 448,
    'candidates.width': 16,
    'candidates.chunk': 64,
    'rl.steps': 8,
  }
  flags = [f'--config.{name}={value}' for name, value in settings.items()]
  return [
    sys.executable,
    '-m',
    'launch.pipeline',
    '--config=configs/tiny.py',
    f'--workdir={workdir}',
    *flags,
  ]


def _run(data, workdir):
  done = subprocess.run(
    _command(data, workdir), cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-4000:]
  return done.stderr


def _kill_when(data, workdir, ready):
  """Starts the pipeline and kills it as soon as `ready` says so."""
  process = subprocess.Popen(
    _command(data, workdir),
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  deadline = time.monotonic() + 300
  while not ready():
    assert process.poll() is None, 'the pipeline ended before it was killed'
    assert time.monotonic() < deadline
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def _report(workdir):
  report = json.loads((workdir / 'report.json').read_text())
  for name in ('seconds', 'commit'):
    report.pop(name)
  return report


def _lines(path):
  return path.read_text().count('\n') if path.exists() else 0


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  base = tmp_path_factory.mktemp('road')
  world.write(base / 'data')
  _run(base / 'data', base / 'whole')
  return base


# Where the kill falls: a stage that reads data, one that trains, one that
# searches in chunks, one that samples and trains.
_POINTS = {
  'data': lambda w: (w / 'data' / 'config.json').exists(),
  'midtrain': lambda w: _lines(w / 'midtrain' / 'metrics.jsonl') >= 3,
  'candidates': lambda w: any((w / 'candidates').glob('parts/*.npz')),
  'rl': lambda w: _lines(w / 'rl' / 'metrics.jsonl') >= 3,
}


@pytest.mark.parametrize('stage', list(_POINTS))
def test_killed_and_started_again_it_ends_in_the_same_report(
  undisturbed, stage
):
  workdir = undisturbed / f'killed_{stage}'
  shutil.copytree(undisturbed / 'whole', workdir)
  names = list(road.STAGES)
  for later in names[names.index(stage) :]:
    shutil.rmtree(workdir / later)
  (workdir / 'report.json').unlink()
  data = undisturbed / 'data'
  _kill_when(data, workdir, lambda: _POINTS[stage](workdir))
  assert not (workdir / stage / 'DONE').exists()
  log = _run(data, workdir)
  assert f'Stage {stage}: resume' in log
  assert _report(workdir) == _report(undisturbed / 'whole')


def test_a_finished_run_is_skipped_and_says_so(undisturbed):
  log = _run(undisturbed / 'data', undisturbed / 'whole')
  assert log.count('finished before, skipped') == len(road.STAGES)
