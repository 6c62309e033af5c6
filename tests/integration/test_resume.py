"""SIGKILL and SIGTERM at any point, then the same command: the same bits."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from gr2_jax.run import lock
from gr2_jax.stages import pipeline
from tests.integration import world

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
# Seconds until a process is where it shall be; a loaded machine needs many.
_WAIT = 900


def _command(data, workdir):
  settings = {
    'data.name': 'world',
    'data.kind': 'generic',
    'data.dir': data,
    'sid.embeddings': data / 'embeddings.npy',
    'text.pieces': 400,
    'text.prompt.max_tokens': 352,
    'sft.train.length': 576,
    'candidates.width': 16,
    'candidates.chunk': 64,
    # Of a handful of lists: one whose target the rules rank first is rare.
    'traces.mode': 'targeted',
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


def _end_when(data, workdir, ready, number=signal.SIGKILL):
  """Sends the pipeline a signal as soon as `ready`; returns its exit code."""
  process = subprocess.Popen(
    _command(data, workdir),
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  deadline = time.monotonic() + _WAIT
  while not ready():
    assert process.poll() is None, 'the pipeline ended before it was killed'
    assert time.monotonic() < deadline
    time.sleep(0.0005)
  os.killpg(process.pid, number)
  return process.wait(timeout=_WAIT)


def _report(workdir):
  report = json.loads((workdir / 'report.json').read_text())
  for name in ('seconds', 'commit'):
    report.pop(name)
  return report


# What depends on the clock.
_TIMING = ('tokens_per_second', 'rollout_seconds', 'update_seconds')


def _trained(workdir):
  """Metrics of each step, and checksums of the last state, by stage."""
  found = {}
  for stage in ('sid', 'midtrain', 'sft', 'rl'):
    records = [
      {k: v for k, v in json.loads(line).items() if k not in _TIMING}
      for line in (workdir / stage / 'metrics.jsonl').read_text().splitlines()
    ]
    steps = [record['step'] for record in records]
    assert steps == sorted(set(steps)), stage
    last = max((workdir / stage / 'checkpoints').glob('[0-9]*'), key=_step)
    saved = json.loads((last / 'extra' / 'metadata').read_text())
    found[stage] = records, json.loads(saved['text'])['state']
  return found


def _step(path):
  return int(path.name)


def _assert_same(workdir, other):
  assert _report(workdir) == _report(other)
  one, another = _trained(workdir), _trained(other)
  for stage, (records, sums) in one.items():
    assert records == another[stage][0], stage
    assert sums == another[stage][1], stage


def _lines(path):
  return path.read_text().count('\n') if path.exists() else 0


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  base = tmp_path_factory.mktemp('run')
  world.write(base / 'data')
  _run(base / 'data', base / 'whole')
  return base


def _writing(directory):
  """Says whether a checkpoint is being written."""
  return any((directory / 'checkpoints').glob('*tmp*'))


# Where the kill falls: a stage that reads data, one that searches in chunks,
# those that train, between their checkpoints and while one is written.
_POINTS = {
  'data': lambda w: (w / 'data' / 'config.json').exists(),
  'candidates': lambda w: any((w / 'candidates').glob('parts/*.npz')),
  'midtrain': lambda w: _lines(w / 'midtrain' / 'metrics.jsonl') >= 3,
  'sft': lambda w: _lines(w / 'sft' / 'metrics.jsonl') >= 1,
  'rl': lambda w: _lines(w / 'rl' / 'metrics.jsonl') >= 3,
}
_WRITING = {
  f'{stage} writing': lambda w, stage=stage: _writing(w / stage)
  for stage in ('sid', 'midtrain', 'sft', 'rl')
}


def _from(undisturbed, stage, name):
  """Copies the run, without `stage` and those after it."""
  workdir = undisturbed / name
  shutil.copytree(undisturbed / 'whole', workdir)
  names = list(pipeline.STAGES)
  for later in names[names.index(stage) :]:
    shutil.rmtree(workdir / later)
  (workdir / 'report.json').unlink()
  return workdir


@pytest.mark.parametrize('point', [*_POINTS, *_WRITING])
def test_killed_and_started_again_it_ends_in_the_same_bits(undisturbed, point):
  stage = point.split()[0]
  workdir = _from(undisturbed, stage, f'killed_{point}')
  ready = (_POINTS | _WRITING)[point]
  data = undisturbed / 'data'
  _end_when(data, workdir, lambda: ready(workdir))
  assert not (workdir / stage / 'DONE').exists()
  assert (workdir / lock.NAME).exists()
  log = _run(data, workdir)
  assert 'its lock is taken over' in log
  assert not (workdir / lock.NAME).exists()
  assert f'Stage {stage}: resume' in log
  _assert_same(workdir, undisturbed / 'whole')


@pytest.mark.parametrize(
  'stage', ['sid', 'candidates', 'midtrain', 'sft', 'rl']
)
def test_terminated_it_ends_with_its_own_code_and_goes_on(undisturbed, stage):
  workdir = _from(undisturbed, stage, f'terminated_{stage}')
  points = _POINTS | {'sid': lambda w: _lines(w / 'sid/metrics.jsonl') >= 2}
  data = undisturbed / 'data'
  code = _end_when(
    data, workdir, lambda: points[stage](workdir), signal.SIGTERM
  )
  assert code == 75
  assert not (workdir / lock.NAME).exists()
  _run(data, workdir)
  _assert_same(workdir, undisturbed / 'whole')


@pytest.mark.parametrize('seed', range(2))
def test_killed_at_random_moments_it_ends_in_the_same_bits(undisturbed, seed):
  workdir, data = undisturbed / f'random_{seed}', undisturbed / 'data'
  draw, report = random.Random(seed), workdir / 'report.json'
  for _ in range(4):
    end = time.monotonic() + draw.uniform(6, 14)
    _end_when(
      data,
      workdir,
      lambda end=end: time.monotonic() > end or report.exists(),
      draw.choice([signal.SIGKILL, signal.SIGTERM]),
    )
  _run(data, workdir)
  _assert_same(workdir, undisturbed / 'whole')


def _refused(command):
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode != 0
  return done.stderr


def test_a_second_run_is_kept_out_of_the_workdir(undisturbed):
  workdir, data = _from(undisturbed, 'rl', 'twice'), undisturbed / 'data'
  first = subprocess.Popen(
    _command(data, workdir),
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  while not (workdir / lock.NAME).exists():
    assert first.poll() is None
    time.sleep(0.01)
  said = _refused(_command(data, workdir))
  assert f'Process {first.pid} on this host runs in {workdir}' in said
  assert first.wait(_WAIT) == 0
  _assert_same(workdir, undisturbed / 'whole')


def test_a_refused_start_changes_nothing_in_a_finished_run(undisturbed):
  workdir, data = undisturbed / 'whole', undisturbed / 'data'
  files = lambda: {
    path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()
  }
  before = files()
  said = _refused(_command(data.parent / 'nowhere', workdir))
  assert 'no such folder' in said
  command = [*_command(data, workdir), '--config.seed=1']
  said = _refused(command)
  assert '  sid: seed: 0 -> 1' in said and '--redo makes them again' in said
  assert 'data: seed: 0 -> 1 (not in' in _refused([*command, '--stages=sid'])
  assert files() == before


def test_a_finished_run_is_skipped_and_says_so(undisturbed):
  log = _run(undisturbed / 'data', undisturbed / 'whole')
  assert log.count('finished before, skipped') == len(pipeline.STAGES)
