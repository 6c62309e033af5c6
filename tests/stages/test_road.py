import pytest

from configs import reward_world, tiny
from gr2_jax import files
from gr2_jax.report import terminal
from gr2_jax.stages import road, world


@pytest.fixture
def done(monkeypatch):
  """Stages that only say that they ran, and tables that name their report."""
  ran = []

  def stage(name):
    def run(config, workdir, force):
      ran.append(name)
      report = {'candidates': 'retrieval.json', 'evaluate': 'report.json'}
      if name in report:
        files.write_json(workdir / report[name], {'name': name})

    return run

  monkeypatch.setattr(
    road, 'STAGES', {name: stage(name) for name in road.STAGES}
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
  config = tiny.get_config()
  road.run(config, tmp_path, only)
  assert len(done) == stages
  assert done == [name for name in road.STAGES if not only or name in only]
  lines = capsys.readouterr().out.splitlines()
  assert [line for line in lines if '_table ' in line] == [table] * bool(table)


def test_a_world_brings_stages_of_its_own(done, tmp_path, monkeypatch):
  monkeypatch.setattr(world, 'STAGES', {'sid': lambda *_: done.append('own')})
  config = reward_world.get_config().base
  road.run(config, tmp_path, ('data', 'sid', 'sft'))
  assert done == ['data', 'own', 'sft']


def test_settings_are_checked_before_anything_is_written(done, tmp_path):
  config = tiny.get_config()
  config.rl.group_size = 1
  with pytest.raises(ValueError, match='rl.group_size = 1 must be at least 2'):
    road.run(config, tmp_path / 'run')
  assert not done and not (tmp_path / 'run').exists()
