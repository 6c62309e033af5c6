"""A dry run as a user starts it: after a small pipeline, without a key."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAGES = 'data,sid,midtrain,candidates'


def _run(module, workdir, *arguments):
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  environment.pop('GR2_TEACHER_API_KEY', None)
  return subprocess.run(
    [
      *(sys.executable, '-m', f'launch.{module}'),
      *('--config=configs/tiny.py', f'--workdir={workdir}', *arguments),
    ],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_a_dry_run_of_a_small_run(tmp_path):
  """A minute and a half on two cores."""
  early = _run('traces', tmp_path, '--dry_run')
  assert early.returncode != 0
  assert f'Run launch.pipeline with --stages={STAGES} first' in early.stderr
  done = _run('pipeline', tmp_path, f'--stages={STAGES}')
  assert done.returncode == 0, done.stderr
  before = sorted(tmp_path.rglob('*'))
  # Tiny answers have no room for the three steps that a language model takes.
  longer = (
    '--config.rl.explanation_tokens=48',
    '--config.rl.max_new_tokens=112',
  )
  prices = ('--price_in=0.1', '--price_out=0.4')
  shown = _run('traces', tmp_path, '--dry_run', *prices, *longer)
  assert shown.returncode == 0, shown.stderr
  print(shown.stdout)
  for kind in ('rejection', 'targeted'):
    assert f'===== {kind}' in shown.stdout
  assert 'requests' in shown.stdout and '\ncost' in shown.stdout
  assert sorted(tmp_path.rglob('*')) == before
  asked = _run('traces', tmp_path)
  assert asked.returncode == 0, asked.stderr
  assert (tmp_path / 'traces' / 'DONE').exists()
