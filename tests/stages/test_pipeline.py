import pathlib

import ml_collections
import pytest

from configs import reward_world, tiny
from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.report import terminal
from gr2_jax.run import lock, runner
from gr2_jax.stages import pipeline, world


def _read(config):
  """Reads what lies outside the run, as the data stage does."""
  return pathlib.Path(config.data.dir).read_text() if config.data.dir else ''


def _config(**data):
  config = tiny.get_config()
  config.data.update(data)
  # Small batches, which eight devices cannot split.
  config.mesh.update(data=1, tensor=8)
  return config


@pytest.fixture
def done(monkeypatch):
  """Stages that only say that they ran, and tables that name their report."""
  ran = []

  def stage(name):
    inputs = ('data',) if name == 'sid' else ()
    external = _read if name == 'data' else None

    @runner.stage(name, sections=('data',), inputs=inputs, external=external)
    def body(config, context):
      ran.append(name)
      report = {'candidates': 'retrieval.json', 'evaluate': 'report.json'}
      if name in report:
        files.write_json(context.workdir / report[name], {'name': name})
      return {}

    return body

  monkeypatch.setattr(
    pipeline, 'STAGES', {name: stage(name) for name in pipeline.STAGES}
  )
  for table in ('closing_table', 'retrieval_table'):
    monkeypatch.setattr(
      terminal, table, lambda report, table=table: f'{table} {report["name"]}'
    )
  return ran


@pytest.mark.parametrize(
  ('only', 'stages', 'table'),
  [
    ((), 9, 'closing_table evaluate'),
    (('evaluate',), 1, 'closing_table evaluate'),
    (('candidates', 'data'), 2, 'retrieval_table candidates'),
    (('candidates', 'sft'), 2, None),
    (('data',), 1, None),
  ],
)
def test_the_table_of_the_last_stage(
  done, tmp_path, capsys, only, stages, table
):
  pipeline.run(_config(), tmp_path, only)
  assert len(done) == stages
  assert done == [name for name in pipeline.STAGES if not only or name in only]
  lines = capsys.readouterr().out.splitlines()
  assert [line for line in lines if '_table ' in line] == [table] * bool(table)


def test_a_world_brings_stages_of_its_own(done, tmp_path, monkeypatch):
  @runner.stage('sid', sections=(), inputs=('data',))
  def own(config, context):
    done.append('own')
    return {}

  monkeypatch.setattr(world, 'STAGES', {'sid': own})
  config = reward_world.get_config().base
  pipeline.run(config, tmp_path, ('data', 'sid', 'sft'))
  assert done == ['data', 'own', 'sft']


def test_settings_are_checked_before_anything_is_written(done, tmp_path):
  config = tiny.get_config()
  config.rl.group_size = 1
  with pytest.raises(ValueError, match='rl.group_size = 1 must be at least 2'):
    pipeline.run(config, tmp_path / 'run')
  assert not done and not (tmp_path / 'run').exists()


def test_batches_are_checked_before_anything_is_written(done, tmp_path):
  """For the devices that are there, and the stages that are not finished."""
  config = _config()
  config.mesh.update(data=8, tensor=1)
  with pytest.raises(
    ValueError, match=r'sft.train.batch_size = 2 .* 8 devices.*multiple of 8'
  ):
    pipeline.run(config, tmp_path / 'run')
  config.mesh.data = 3
  with pytest.raises(ValueError, match='data=3, .* does not cover 8 devices'):
    pipeline.run(config, tmp_path / 'run')
  assert not done and not (tmp_path / 'run').exists()
  config.mesh.update(data=8, tensor=1)
  pipeline.run(config, tmp_path / 'run', ['data', 'sid'])
  workdir = tmp_path / 'whole'
  pipeline.run(_config(), workdir)
  # The mesh is in no stage's key: a finished run is one on other devices, too.
  pipeline.run(config, workdir)
  # But what reads it would take this one.
  config.mesh.data = 3
  with pytest.raises(ValueError, match='data=3, .* does not cover 8 devices'):
    pipeline.run(config, workdir)
  assert config_lib.load(workdir / 'config.json').mesh.data == 8


def test_a_path_in_another_spelling_is_no_other_setting(
  done, tmp_path, monkeypatch
):
  (tmp_path / 'raw').write_text('raw')
  workdir = tmp_path / 'run'
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  given = _config(dir='raw')
  pipeline.run(given, workdir)
  assert given.data.dir == 'raw'
  assert config_lib.load(workdir / 'config.json').data.dir == f'{tmp_path}/raw'
  count = len(done)
  for spelled in ('~/raw', f'{tmp_path}/raw', './run/../raw'):
    pipeline.run(_config(dir=spelled), workdir)
  assert len(done) == count
  (tmp_path / 'other').write_text('raw')
  with pytest.raises(ValueError, match='data.dir: .*/raw. -> .*/other'):
    pipeline.run(_config(dir='other'), workdir)


def _content(workdir):
  return {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()}


def test_a_start_that_is_refused_changes_nothing(done, tmp_path):
  workdir = tmp_path / 'run'
  (tmp_path / 'raw').write_text('raw')
  config = _config(dir=str(tmp_path / 'raw'))
  pipeline.run(config, workdir)
  before, count = _content(workdir), len(done)
  other = config.copy_and_resolve_references()
  other.seed = 1
  wrong = _config(dir=str(tmp_path / 'nowhere'))
  untracked = config.copy_and_resolve_references()
  untracked.tracking = ml_collections.ConfigDict({'tensorbord': True})
  for given, only, error, message in (
    (wrong, (), FileNotFoundError, 'nowhere'),
    (wrong, ('sid',), ValueError, r'data: config\.data\.dir'),
    (other, (), ValueError, r'rl: seed: 0 -> 1'),
    (other, ('sid',), ValueError, 'data: seed: 0 -> 1'),
    (untracked, (), ValueError, 'tensorbord'),
    (config, ('sidd',), ValueError, r"No stage \['sidd'\]"),
  ):
    with pytest.raises(error, match=message):
      pipeline.run(given, workdir, only)
  assert _content(workdir) == before and len(done) == count
  pipeline.run(other, workdir, redo=True)
  assert config_lib.load(workdir / 'config.json').seed == 1
  assert len(done) == 2 * count


def test_one_run_at_a_time(done, tmp_path, monkeypatch):
  (tmp_path / 'raw').write_text('raw')
  config, seen = _config(dir=str(tmp_path / 'raw')), []

  @runner.stage('sid', sections=())
  def second(config, context):
    with pytest.raises(RuntimeError, match='wait for its end'):
      pipeline.run(config, tmp_path)
    seen.append('refused')
    return {}

  monkeypatch.setitem(pipeline.STAGES, 'sid', second)
  pipeline.run(config, tmp_path)
  assert seen == ['refused']
  assert not (tmp_path / lock.NAME).exists()
