"""RL on rankings drawn from utilities: its files, and a run cut off."""

import jax
import numpy as np
import pytest

from gr2_jax import files, sharding
from gr2_jax.lm import decoder, io
from gr2_jax.rank import evidence, heads
from gr2_jax.run import artifacts
from gr2_jax.stages import listwise, rl
from gr2_jax.train import loop
from tests.integration import small

NAMES = evidence.NAMES
START = small.head(0.3, {'log_rank': 0.5, 'follow': 0.5, 'alone': 0.5}, NAMES)


@pytest.fixture
def tuned(listed, mesh1):
  """`tuned(name)`: a run whose SFT is finished."""

  def make(name):
    workdir = listed(name)
    (workdir / 'sft').mkdir()
    files.write_json(workdir / 'sft' / 'DONE', {'fingerprint': 'sft'})
    shape = small.model(artifacts.Artifacts(small.config(), workdir))
    params = decoder.init(shape, mesh1, sharding.TRAIN_RULES, jax.random.key(1))
    io.save(workdir / 'sft' / 'model', shape, params)
    heads.save(workdir / 'sft' / 'model', START, NAMES)
    return workdir

  return make


def _read(workdir, stage='rl'):
  mesh = sharding.make_mesh()
  directory = workdir / stage / 'model'
  _, params = io.load(directory, mesh, sharding.TRAIN_RULES)
  return jax.device_get({'lm': params, 'head': heads.load(directory)[0]})


@pytest.fixture
def trained(tuned):
  workdir = tuned('whole')
  return workdir, rl.run(small.config(), workdir)


@pytest.fixture
def measured(monkeypatch):
  """`measured(*values)`: what validation says of the ranker, time by time."""

  def make(*values):
    found = iter(values)
    measure = lambda params: {'valid_ndcg@5': next(found)}
    monkeypatch.setattr(listwise, 'validation', lambda *args: measure)

  return make


def test_a_ranker_learns_from_both_kinds_of_lists(tuned):
  config, workdir = small.config(), tuned('last')
  config.rl.keep_best = False
  summary = rl.run(config, workdir)
  records = list(files.read_jsonl(workdir / 'rl' / 'metrics.jsonl'))
  assert [r['step'] for r in records] == [1, 2, 3, 4]
  timing = list(files.read_jsonl(workdir / 'rl' / 'timing.jsonl'))
  assert timing and all(record['lists_per_second'] > 0 for record in timing)
  own = {'reward', 'rank_reward', 'identity_rate', 'clip_fraction'}
  own |= {'ratio_min', 'ratio_max', 'place_entropy', 'kept_rate'}
  for record in records:
    assert own <= set(record)
    assert {f'explained/{name}' for name in own} <= set(record)
    assert 0 < record['ratio_min'] <= record['ratio_max']
  measured = {
    r['step']: r['valid_ndcg@5'] for r in records if 'valid_ndcg@5' in r
  }
  assert set(measured) == {2, 4}
  assert summary['best_step'] == 4
  assert summary['valid_ndcg@5'] == pytest.approx(measured[4], rel=1e-5)
  assert 'valid_ndcg@5_start' in summary
  store = artifacts.Artifacts(small.config(), workdir)
  assert summary['lists'] == len(store.rl_lists())
  assert summary['valid_lists'] == len(store.lists('valid').hits())
  after = _read(workdir)
  assert summary['head'] == heads.describe(after['head'], NAMES)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), after, _read(workdir, 'sft')
  )
  # Two updates of each kind a step, at a rate of 1e-3; the head's is threefold.
  assert 0 < max(jax.tree.leaves(moved['lm'])) < 0.02
  assert max(jax.tree.leaves(moved['head'])) < 0.06
  assert min(jax.tree.leaves(moved['head'])) > 0


@pytest.mark.parametrize(
  'values, best', [((0.3, 0.5, 0.4, 0.5), 2), ((0.3, 0.4, 0.5, 0.5), 4)]
)
def test_the_checkpoint_that_validates_best_is_kept(
  tuned, measured, values, best
):
  """Values of the start, of steps 2 and 4, and of what is chosen."""
  measured(*values)
  summary = rl.run(small.config(), tuned('best'))
  assert summary['best_step'] == best
  assert summary['valid_ndcg@5_start'] == values[0]
  assert summary['valid_ndcg@5'] == values[3]


def test_the_ranker_that_rl_began_with_stays_where_none_is_better(
  tuned, measured
):
  measured(0.6, 0.5, 0.4, 0.5)
  workdir = tuned('start')
  summary = rl.run(small.config(), workdir)
  assert summary['best_step'] == 0
  assert summary['valid_ndcg@5'] == summary['valid_ndcg@5_start'] == 0.6
  assert summary['head'] == heads.describe(START, NAMES)
  both = _read(workdir), _read(workdir, 'sft')
  jax.tree.map(np.testing.assert_array_equal, *both)


def test_a_killed_run_ends_in_the_same_bits(trained, tuned, killed_after):
  whole, summary = trained
  cut = tuned('cut')
  with killed_after(loop, '_next_batch', 3):
    rl.run(small.config(), cut)
  resumed = rl.run(small.config(), cut)
  for result in (summary, resumed):
    result.pop('seconds')
  assert resumed == summary
  jax.tree.map(np.testing.assert_array_equal, _read(whole), _read(cut))
  texts = [(w / 'rl' / 'metrics.jsonl').read_text() for w in (whole, cut)]
  assert texts[0] == texts[1]


def test_lists_without_explanations_are_enough(tuned):
  config, workdir = small.config(), tuned('plain')
  config.rl.explained_per_step = 0
  config.rl.steps = 2
  config.rl.keep_best = False
  rl.run(config, workdir)
  for record in files.read_jsonl(workdir / 'rl' / 'metrics.jsonl'):
    assert not any(name.startswith('explained/') for name in record)
  # How much words count is not touched.
  after, before = (_read(workdir, stage)['head'] for stage in ('rl', 'sft'))
  for name in heads.HEADS:
    assert after[name]['words'] == before[name]['words']
    assert after[name]['tau'] != before[name]['tau']


@pytest.mark.parametrize(
  'name, value, message',
  [
    ('lists_per_step', 3, r'rl\.lists_per_step = 3 must be a multiple .* = 2'),
    ('explained_per_step', 1, r'rl\.explained_per_step = 1 must be 0 .no'),
    ('rankings', 7, r'rl\.rankings = 7 must be an even'),
    ('group_size', 3, r'rl\.group_size = 3 must be an even'),
  ],
)
def test_settings_that_do_not_fit_are_refused(tuned, name, value, message):
  config = small.config()
  config.rl[name] = value
  with pytest.raises(ValueError, match=message):
    rl.run(config, tuned('bad'))


def test_a_model_without_utilities_is_named(tuned):
  workdir = tuned('headless')
  (workdir / 'sft' / 'model' / 'head.json').unlink()
  with pytest.raises(FileNotFoundError, match=r"answer\.ranking='likelihood'"):
    rl.run(small.config(), workdir)
