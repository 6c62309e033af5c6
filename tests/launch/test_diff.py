import os
import pathlib
import subprocess
import sys

from gr2_jax import files

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def _diff(*arguments, **environment):
  return subprocess.run(
    [sys.executable, '-m', 'launch.diff', *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
  )


def test_the_command_prints_the_differences(tmp_path):
  for name, seed in (('a', 0), ('b', 1)):
    (tmp_path / name).mkdir()
    files.write_json(
      tmp_path / name / 'report.json', {'config': {'seed': seed}, 'x': seed}
    )
  done = _diff('~/a', tmp_path / 'b', HOME=str(tmp_path))
  assert done.returncode == 0, done.stderr
  assert 'Config' in done.stdout and 'x' in done.stdout.split('Results')[1]


def test_a_directory_without_a_run_is_named(tmp_path):
  done = _diff(tmp_path, tmp_path)
  assert done.returncode != 0
  assert 'neither report.json nor config.json' in done.stdout + done.stderr
