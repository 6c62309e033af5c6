import ml_collections
import pytest

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
  config = ml_collections.ConfigDict({'seed': 0, 'data': {'kind': 'generic'}})
  road.run(config, tmp_path, only)
  assert len(done) == stages
  assert done == [name for name in road.STAGES if not only or name in only]
  lines = capsys.readouterr().out.splitlines()
  assert [line for line in lines if '_table ' in line] == [table] * bool(table)


def test_a_world_brings_stages_of_its_own(done, tmp_path, monkeypatch):
  monkeypatch.setattr(world, 'STAGES', {'sid': lambda *_: done.append('own')})
  config = ml_collections.ConfigDict({'seed': 0, 'data': {'kind': 'synthetic'}})
  road.run(config, tmp_path, ('data', 'sid', 'sft'))
  assert done == ['data', 'own', 'sft']
