"""Sweeps: which runs are made with which config, and the table by hand."""

import json

import ml_collections
import numpy as np
import pytest

from gr2_jax import experiment, files
from gr2_jax.report import pooled
from gr2_jax.run import lock, runner
from gr2_jax.stages import pipeline, sweep


@pytest.fixture
def made(monkeypatch):
  """Runs that only write a summary; what they were asked is kept."""
  asked = []

  def run(config, workdir, only=(), redo=False):
    asked.append((workdir, config.to_dict(), list(only)))
    for stage in only:
      (workdir / stage).mkdir(parents=True, exist_ok=True)
    (workdir / 'sid').mkdir(parents=True, exist_ok=True)
    files.write_json(
      workdir / 'sid' / 'summary.json',
      {
        'unique': config.sid.lr + config.seed / 10,
        'dead': [0, config.seed],
        'collisions': 0,
      },
    )

  monkeypatch.setattr(pipeline, 'run', run)
  return asked


def _base():
  config = experiment.defaults()
  config.seed, config.sid.lr = 9, 0.5
  config.data.name = config.data.kind = 'ml-100k'
  return config


def _sweep(**changes):
  return ml_collections.ConfigDict(
    {
      'base': _base(),
      'stages': ['data', 'sid'],
      'seeds': [0, 1],
      'share': [('sid.embeddings', 'sid/embeddings.npy')],
      'runs': [('plain', ()), ('more', (('sid.lr', 0.7),))],
      'columns': ['sid.unique', 'sid.dead', 'sid.collisions'],
      **changes,
    }
  )


def test_every_run_has_its_config_seed_and_directory(made, tmp_path):
  document = sweep.run(_sweep(), tmp_path)
  shared, *asked = made
  assert shared[0] == tmp_path / '_shared'
  assert (shared[1]['sid']['lr'], shared[1]['sid']['embeddings']) == (0.5, '')
  path = str(tmp_path / '_shared' / 'sid' / 'embeddings.npy')
  expected = [
    (tmp_path / name / f'seed_{seed}', seed, rate)
    for name, rate in (('plain', 0.5), ('more', 0.7))
    for seed in (0, 1)
  ]
  for (directory, config, stages), (where, seed, rate) in zip(
    asked, expected, strict=True
  ):
    assert directory == where
    found = (config['seed'], config['sid']['lr'], config['sid']['embeddings'])
    assert found == (seed, rate, path)
    assert stages == ['data', 'sid']
  assert json.loads((tmp_path / 'sweep.json').read_text()) == document
  assert [r['results']['sid.dead'] for r in document['runs']] == [
    [0, 0],
    [0, 1],
    [0, 0],
    [0, 1],
  ]


def test_vectors_of_the_base_are_kept(made, tmp_path):
  swept = _sweep()
  swept.base.sid.embeddings = 'own.npy'
  sweep.run(swept, tmp_path)
  assert {config['sid']['embeddings'] for _, config, _ in made} == {'own.npy'}
  assert not (tmp_path / '_shared').exists()


def test_the_table_by_hand(made, tmp_path):
  lines = sweep.table(sweep.run(_sweep(), tmp_path)).splitlines()
  assert lines[0].split() == ['run', 'seeds', 'unique', 'dead', 'collisions']
  # 0.5 and 0.6: deviation 0.1 / sqrt(2).
  assert lines[2].split() == ['plain', '2', '0.55', '±0.071', '0', '0.5', '0']
  assert lines[3].split()[:3] == ['more', '2', '0.75']


def test_runs_of_a_seed_branch_off_one(made, tmp_path):
  sweep.run(_sweep(branch='data', share=[]), tmp_path)
  base = [(d, only) for d, _, only in made if d.parent.name == '_shared']
  assert base == [
    (tmp_path / '_shared' / f'seed_{seed}', ['data']) for seed in (0, 1) * 2
  ]
  (tmp_path / '_shared' / 'seed_1' / 'data' / 'new').touch()
  (tmp_path / 'more' / 'seed_1' / 'data').rmdir()
  sweep.run(_sweep(branch='data', share=[]), tmp_path)
  # What a run has is its own; what it lacks comes from the run of its seed.
  assert (tmp_path / 'more' / 'seed_1' / 'data' / 'new').exists()
  assert not (tmp_path / 'plain' / 'seed_1' / 'data' / 'new').exists()
  assert not list(tmp_path.rglob('*.part'))


def test_curves_are_kept_and_drawn(made, tmp_path, monkeypatch):
  run = pipeline.run

  def with_metrics(config, workdir, only=(), redo=False):
    run(config, workdir, only)
    files.write_jsonl(
      workdir / 'sid' / 'metrics.jsonl',
      [{'step': i, 'loss': config.seed + i / 3} for i in (1, 2)]
      + [{'step': 3, 'other': 1.0}],
    )

  monkeypatch.setattr(pipeline, 'run', with_metrics)
  swept = _sweep(curves=['sid.loss'], share=[])
  swept.base.data.name = 'made-up'
  document = sweep.run(swept, tmp_path)
  assert [r['curves']['sid.loss'] for r in document['runs'][:2]] == [
    [[1, 2], [0.3333, 0.6667]],
    [[1, 2], [1.3333, 1.6667]],
  ]
  page = (tmp_path / 'sweep.html').read_text()
  assert page.count('<svg class="chart"') == 3
  with pytest.raises(ValueError, match="'sid.acc' is not in the metrics"):
    sweep.run(_sweep(curves=['sid.acc'], share=[]), tmp_path)


def test_runs_whose_finished_stages_do_not_fit_are_refused(
  tmp_path, monkeypatch
):
  ran = []

  def stage(name, inputs=()):
    @runner.stage(name, sections=(name,), inputs=inputs)
    def body(config, context):
      ran.append((context.workdir.parent.name, name))
      return {'lr': config.sid.lr}

    return body

  stages = {'data': stage('data'), 'sid': stage('sid', ['data'])}
  monkeypatch.setattr(pipeline, 'STAGES', stages)
  swept = _sweep(
    branch='data', share=[], seeds=[0], stages=['sid'], columns=['sid.lr']
  )
  rates = lambda found: [run['results']['sid.lr'] for run in found['runs']]
  assert rates(sweep.run(swept, tmp_path)) == [0.5, 0.7]
  assert ran == [('_shared', 'data'), ('plain', 'sid'), ('more', 'sid')]
  assert rates(sweep.run(swept, tmp_path)) == [0.5, 0.7] and len(ran) == 3
  swept.base.sid.lr = 0.6
  with pytest.raises(ValueError, match=r'sid: config\.sid\.lr: 0\.5 -> 0\.6'):
    sweep.run(swept, tmp_path)
  assert len(ran) == 3
  assert rates(sweep.run(swept, tmp_path, redo=True)) == [0.6, 0.7]
  assert ran[3:] == [('plain', 'sid')]
  # Of what all runs of a seed share, a run cannot have another version.
  swept.runs = [('own', (('data.core', 7),))]
  with pytest.raises(ValueError, match=r'data: .* 5 -> 7 \(not in'):
    sweep.run(swept, tmp_path)


def test_one_sweep_at_a_time(made, tmp_path):
  with (
    lock.hold(tmp_path),
    pytest.raises(RuntimeError, match='wait for its end'),
  ):
    sweep.run(_sweep(), tmp_path)
  assert not made


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'runs': [('a/b', ())]}, "'a/b' cannot be a directory"),
    ({'runs': [('a', (('sid.l', 1),))]}, "no 'sid.l'"),
    ({'runs': [('a', (('rll.lr', 1),))]}, "no section for 'rll.lr'"),
    ({'columns': ['sid.mse']}, "'sid.mse' is not in the summary"),
  ],
)
def test_mistakes_are_named(made, tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    sweep.run(_sweep(**changes), tmp_path)


def test_a_column_of_a_section(tmp_path):
  (tmp_path / 'evaluate').mkdir()
  summary = {'n': 3, 'systems': {'rl': {'recall@1': 0.25}}}
  files.write_json(tmp_path / 'evaluate' / 'summary.json', summary)
  name = 'evaluate.systems.rl.recall@1'
  assert sweep._read(tmp_path, name) == 0.25
  entry = {'name': 'a', 'seed': 0, 'changes': {}, 'results': {name: 0.25}}
  lines = sweep.table({'runs': [entry]}).splitlines()
  assert lines[0].split() == ['run', 'seeds', 'rl.recall@1']
  with pytest.raises(ValueError, match=r"no 'x' in \['rl'\]"):
    sweep._read(tmp_path, 'evaluate.systems.x.recall@1')
  with pytest.raises(ValueError, match="no 'rl' in 3"):
    sweep._read(tmp_path, 'evaluate.n.rl')


def test_seeds_of_one_config_are_pooled(monkeypatch, tmp_path):
  """Each seed's only list has the true item at the place of its seed."""

  def run(config, workdir, only=(), redo=False):
    assert only == list(pipeline.STAGES)
    (workdir / 'evaluate').mkdir(parents=True)
    summary = {'n': 1, 'hit_rate': 0.5}
    files.write_json(workdir / 'evaluate' / 'summary.json', summary)
    places = {'rl': np.zeros(1, int), 'prerank': np.array([config.seed])}
    path = workdir / 'evaluate' / pooled.FILE
    files.atomic_savez(path, users=np.array([7]), **places)

  monkeypatch.setattr(pipeline, 'run', run)
  document = sweep.run(sweep.of_seeds(_base(), [0, 1, 2]), tmp_path)
  assert document['base']['seed'] == 9
  found = document['pooled']['run']
  assert found['lists'] == [1, 1, 1]
  assert found['deltas']['rl-prerank']['recall@1'][0] == pytest.approx(2 / 3)
  assert 'rl-prerank' in sweep.table(document)


def test_every_run_is_checked_before_the_first_begins(made, tmp_path):
  runs = [('plain', ()), ('wrong', (('rl.group_size', 1),))]
  with pytest.raises(ValueError, match='rl.group_size = 1 must be at least 2'):
    sweep.run(_sweep(runs=runs), tmp_path)
  assert not made
