"""`--help` of every command: it ends well, and what it shows can be pasted."""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from gr2_jax import config as config_lib
from gr2_jax.stages import pipeline

ROOT = pathlib.Path(__file__).resolve().parents[2]
# By what comes after `python -m launch.`; a package's is its `__main__.py`.
COMMANDS = sorted(
  '.'.join(
    path.relative_to(ROOT / 'launch').with_suffix('').parts
  ).removesuffix('.__main__')
  for path in (ROOT / 'launch').rglob('*.py')
  if 'cli.run(main)' in path.read_text()
)
# `environment.sh`, `common.sh` and `help.sh` are parts of others.
SCRIPTS = sorted(
  path.stem
  for path in (ROOT / 'launch').glob('*.sh')
  if path.stem not in ('environment', 'common', 'help')
)


def _help(*command):
  found = subprocess.run(
    [*command, '--help'], cwd=ROOT, capture_output=True, text=True
  )
  assert found.returncode == 0 and found.stderr == '', found.stderr
  assert max(map(len, found.stdout.splitlines())) <= 100
  return found.stdout


def _shown(text):
  """Yields the commands of a help, as a shell would read them."""
  lines = text.replace('\\\n', ' ').splitlines()
  for line in lines:
    if re.match(r' +(python -m|bash) launch', line):
      yield shlex.split(line.split(' | ')[-1].split(' > ')[0])


def _settings(tokens):
  """Returns the settings of the config that a command names."""
  (given,) = [t for t in tokens if t.startswith('--config=')]
  path, _, switches = given.removeprefix('--config=').partition(':')
  assert (ROOT / path).exists()
  module = importlib.import_module(path.removesuffix('.py').replace('/', '.'))
  return config_lib.flatten(module.get_config(switches))


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command_shows_what_can_be_pasted(name):
  text = _help(sys.executable, '-m', f'launch.{name}')
  listed = set(re.findall(r'^  --(?:\[no\])?(\w+)', text, re.MULTILINE))
  own = [
    tokens
    for tokens in _shown(text)
    if tokens[:3] == ['python', '-m', f'launch.{name}']
    or tokens[:2] == ['bash', f'launch/{name}.sh']
  ]
  assert own
  for tokens in own:
    flags = [token[2:].partition('=')[0] for token in tokens if '--' in token]
    settings = {flag[7:] for flag in flags if flag.startswith('config.')}
    assert set(flags) - {f'config.{name}' for name in settings} <= listed
    if settings:
      assert settings <= set(_settings(tokens))


@pytest.mark.parametrize('name', ['pipeline', 'traces', 'sasrec', 'aot'])
def test_help_names_the_main_settings(name):
  text = _help(sys.executable, '-m', f'launch.{name}')
  known = _settings(['--config=configs/quickstart.py'])
  shown = re.findall(r'^    --config\.([\w.]+)=', text, re.MULTILINE)
  assert len(shown) >= 2 and set(shown) <= set(known)


def test_help_of_the_pipeline_names_all_stages_and_flags():
  text = _help(sys.executable, '-m', 'launch.pipeline')
  for stage in pipeline.STAGES:
    assert re.search(rf'\b{stage}\b', text.split('--stages')[1])
  assert '--coordinator' in text and '--[no]debug' in text


def test_help_comes_whatever_the_other_flags_are():
  found = subprocess.run(
    [sys.executable, '-m', 'launch.diff', '--no_such=1', '--help'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0 and 'python -m launch.diff' in found.stdout


@pytest.mark.parametrize('name', SCRIPTS)
def test_help_of_a_script_shows_how_it_is_called(name):
  text = _help('bash', f'launch/{name}.sh')
  assert f'bash launch/{name}.sh' in text
