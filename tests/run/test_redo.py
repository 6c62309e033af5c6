"""What a start refuses before any stage runs."""

import pathlib

import ml_collections
import pytest

from gr2_jax.run import redo, runner


@pytest.fixture
def ran():
  return []


@pytest.fixture
def stages(ran):
  """Three stages, each made from those before; the first reads a file."""

  def read(config):
    return pathlib.Path(config.a.file).read_text()

  def stage(name, **settings):
    @runner.stage(name, sections=(name,), **settings)
    def body(config, context):
      ran.append(name)
      return {}

    return body

  return {
    'a': stage('a', external=read),
    'b': stage('b', inputs=('a',)),
    'c': stage('c', inputs=('a', 'b')),
  }


@pytest.fixture
def config(tmp_path):
  (tmp_path / 'file').write_text('raw')
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'a': {'file': str(tmp_path / 'file')},
      'b': {'x': 1, 'y': 1},
      'c': {'x': 1},
    }
  )


@pytest.fixture
def finished(config, stages, tmp_path):
  for stage in stages.values():
    stage(config, tmp_path / 'run')
  return tmp_path / 'run'


def _refusal(*args, **kwargs):
  with pytest.raises(ValueError) as refused:
    redo.check(*args, **kwargs)
  return str(refused.value).splitlines()


def test_what_fits_and_what_is_not_there_yet_passes(
  config, stages, finished, tmp_path
):
  redo.check(config, finished, stages, stages)
  redo.check(config, finished, stages, ['c'])
  redo.check(config, tmp_path / 'new', stages, stages)
  # A later stage may change, for it is not read.
  config.c.x = 2
  redo.check(config, finished, stages, ['a', 'b'])


def test_stages_that_would_be_made_again_are_listed_with_what_changed(
  config, stages, finished
):
  config.b.x = 2
  head, *lines, remedy = _refusal(config, finished, stages, stages)
  assert head.startswith(f'{finished} holds finished stages')
  assert lines == ['  b: config.b.x: 1 -> 2', "  c: its input 'b'"]
  assert '--redo makes them again' in remedy
  redo.check(config, finished, stages, stages, redo=True)


def test_another_seed_for_one_stage_would_leave_the_others_behind(
  config, stages, finished, caplog
):
  config.seed = 1
  lines = _refusal(config, finished, stages, ['b'], redo=True)
  assert lines[1:3] == [
    '  a: seed: 0 -> 1 (not in --stages)', '  b: seed: 0 -> 1'
  ]  # fmt: skip
  assert '--stages=a,b --redo' in lines[3]
  redo.check(config, finished, stages, ['a', 'b'], redo=True)
  assert 'stages c were made from what is made again' in caplog.text


def test_stages_that_are_read_must_belong_together(config, stages, finished):
  config.b.x = 2
  stages['b'](config, finished, redo=True)
  redo.check(config, finished, stages, ['b'])
  lines = _refusal(config, finished, stages, ['c'])
  assert lines[1] == "  c: its input 'b'"
  del stages['c']

  @runner.stage('d', sections=(), inputs=('a', 'b'))
  def last(config, context):
    raise AssertionError

  stages['d'] = last
  config.b.x = 1
  lines = _refusal(config, finished, stages, ['d'])
  assert lines[1] == '  b: config.b.x: 2 -> 1 (not in --stages)'


def test_files_that_are_missing_or_others_are_found_at_the_start(
  config, stages, finished, tmp_path
):
  (tmp_path / 'file').write_text('other')
  lines = _refusal(config, finished, stages, stages)
  assert lines[1] == '  a: the files that it reads from outside the run'
  config.a.file = str(tmp_path / 'nowhere')
  with pytest.raises(FileNotFoundError, match='nowhere'):
    redo.check(config, finished, stages, stages, redo=True)
  lines = _refusal(config, finished, stages, ['c'])
  assert 'a: config.a.file' in lines[1] and '(not in --stages)' in lines[1]


def test_a_stage_that_is_read_and_not_finished_is_named(
  config, stages, finished
):
  (finished / 'b' / 'DONE').unlink()
  with pytest.raises(FileNotFoundError, match="Run the stage 'b' first"):
    redo.check(config, finished, stages, ['c'])


def test_checkpoints_of_another_config_are_found_at_the_start(
  config, stages, finished, ran
):
  (finished / 'c' / 'DONE').unlink()
  (finished / 'c' / 'checkpoints' / '20').mkdir(parents=True)
  config.c.x = 2
  with pytest.raises(ValueError, match="'c' was cut off.*--force.*--redo"):
    redo.check(config, finished, stages, stages)
  left = redo.check(config, finished, stages, stages, force=True)
  assert left == redo.check(config, finished, stages, stages, redo=True)
  assert left == ['c'] and ran == ['a', 'b', 'c']
