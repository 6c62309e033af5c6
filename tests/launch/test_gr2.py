"""The package: its command, configs from anywhere, and a wheel of it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import venv

import pytest

from gr2_jax import experiment
from launch import cli, gr2

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(command, cwd, **more):
  return subprocess.run(
    command,
    cwd=cwd,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    **more,
  )


def _gr2(*arguments, cwd=ROOT):
  return _run([sys.executable, '-m', 'launch.gr2', *arguments], cwd)


def test_every_command_is_a_module():
  for module, what in gr2.COMMANDS.values():
    assert (ROOT / 'launch' / f'{module}.py').exists() and what
    assert module in gr2.usage() or module.replace('_', '-') in gr2.usage()


def test_help_and_unknown_commands():
  assert _gr2().stdout == _gr2('--help').stdout == gr2.usage() + '\n'
  found = _gr2('new-item')
  assert found.returncode == 1
  assert found.stderr == (
    "gr2 has no command 'new-item': did you mean new-items?\n"
  )
  assert 'use pipeline, ' in _gr2('x').stderr


def test_a_command_is_its_module(tmp_path):
  found = _gr2('diff', str(tmp_path), cwd=tmp_path)
  assert found.returncode == 1
  assert 'Give two directories of runs' in found.stderr


def test_configs_are_found_from_any_directory(tmp_path):
  found = _gr2(
    *('pipeline', '--config=configs/tiny.py', '--describe'),
    *('--config.rl.alpha=0.5',),
    cwd=tmp_path,
  )
  assert found.returncode == 0, found.stderr
  assert 'rl.alpha = 0.5 (default 0.02) [N] [G]' in found.stdout.splitlines()


@pytest.mark.parametrize(
  'argv',
  [
    ['x', '--config=configs/tiny.py:a=1', '--workdir=configs/tiny.py:a'],
    ['x', '-config=configs/tiny.py'],
    ['x', '--config', 'configs/tiny.py'],
  ],
)
def test_a_packaged_config_stands_in_for_an_absent_file(
  argv, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  found = cli.find_config(argv)
  (changed,) = [new for new, old in zip(found, argv, strict=True) if new != old]
  assert f'{ROOT}/configs/tiny.py' in changed
  # A file of one's own comes first.
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'tiny.py').touch()
  assert cli.find_config(argv) == argv


def test_other_files_and_missing_values_are_left_alone(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for argv in (
    ['x', '--config=configs/absent.py'],
    ['x', '--config=tiny.py'],
    ['x', '--config'],
    ['x', '--workdir=configs/tiny.py'],
  ):
    assert cli.find_config(argv) == argv


@pytest.mark.slow
def test_a_wheel_works_in_a_bare_environment(tmp_path):
  """Takes minutes: the base install comes from the package index."""
  source = tmp_path / 'source'
  # Building leaves files behind.
  shutil.copytree(
    ROOT, source, ignore=shutil.ignore_patterns('.*', 'results', 'tests')
  )
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
  _run(
    [*pip, 'wheel', '--no-deps', '--wheel-dir', tmp_path, source],
    tmp_path,
    check=True,
  )
  (wheel,) = tmp_path.glob('gr2_jax-*.whl')
  venv.create(tmp_path / 'bare', with_pip=True)
  programs = tmp_path / 'bare' / 'bin'
  run = lambda *command: subprocess.run(
    command,
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env={'PATH': str(programs), 'JAX_PLATFORMS': 'cpu'},
  )
  found = run('pip', 'install', '-q', f'{wheel}[serve,teacher]')
  assert found.returncode == 0, found.stderr
  code = """
import importlib.metadata, json, pathlib, gr2_jax, launch, configs.quickstart
from gr2_jax.teacher import messages
from gr2_jax.report import page
root = pathlib.Path(gr2_jax.__file__).parent
wanted = ['py.typed', 'report/page.css', 'teacher/templates/v1/system.txt',
          'teacher/rubrics/v1/flow.txt', 'serve/page.html', 'serve/page.js']
meta = importlib.metadata.metadata('gr2_jax')
print(json.dumps([
  gr2_jax.__version__ == meta['Version'],
  [name for name in wanted if not (root / name).exists()],
  sorted(meta.get_all('Provides-Extra')),
]))
"""
  found = run('python', '-c', code)
  assert found.returncode == 0, found.stderr
  extras = ['beam', 'cuda', 'serve', 'teacher', 'test', 'tpu']
  assert json.loads(found.stdout) == [True, [], extras]
  for command in gr2.COMMANDS:
    found = run('gr2', command, '--help')
    assert found.returncode == 0 and 'flags:' in found.stdout, found.stderr
  found = run('gr2', 'pipeline', '--config=configs/tiny.py', '--describe')
  assert found.returncode == 0, found.stderr
  settings = [line for line in found.stdout.splitlines() if ' = ' in line]
  assert len(settings) > len(experiment.defaults())
