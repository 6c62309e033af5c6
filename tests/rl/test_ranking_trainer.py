"""Whole RL steps on rankings: metrics, draws, programs, learning."""

import dataclasses

import jax
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.rank import heads
from gr2_jax.rl import ranking_trainer, rankings
from gr2_jax.train import metrics
from tests.rl import tiny

NAMES = {
  *('reward', 'rank_reward', 'identity_rate', 'kept_rate', 'place_entropy'),
  *('loss', 'grad_norm', 'clip_fraction', 'logp_gap'),
  *('ratio', 'ratio_min', 'ratio_max'),
}
JOINT = {'loss', 'grad_norm'}
COMMON = {
  *('lr', 'skipped', 'timing/rollout_seconds', 'timing/update_seconds'),
}


KINDS = (heads.DIRECT, heads.EXPLAINED)


def _trainer(mesh, seed=3):
  return ranking_trainer.RankingTrainer(
    tiny.MODEL, tiny.RANKED, tiny.FMT, mesh, seed
  )


@pytest.fixture(scope='module')
def rl(mesh1):
  return _trainer(mesh1)


def _batch(mesh, prompts, begin=0, kinds=(heads.DIRECT,)):
  rows = (begin + np.arange(tiny.Q)) % len(prompts)
  # Direct prompts stand beside the explained ones.
  histories = tiny.explained_set(len(prompts)).histories
  sets = {
    heads.DIRECT: prompts,
    heads.EXPLAINED: dataclasses.replace(prompts, histories=histories),
  }
  return sharding.shard_batch(
    mesh, {kind: sets[kind].batch(rows) for kind in kinds}
  )


@pytest.fixture
def draws(monkeypatch):
  """Keeps the orders that each step draws."""
  kept, draw = [], rankings.draw

  def keep(*args, **kwargs):
    found = draw(*args, **kwargs)
    kept.append(np.asarray(found[0].order))
    return found

  monkeypatch.setattr(rankings, 'draw', keep)
  return kept


def _step(rl, state, batch):
  state, pairs = rl.step(state, batch)
  return state, metrics.means(jax.device_get(pairs))


def test_metrics_and_counters(mesh1, rl):
  batch = _batch(mesh1, tiny.ranked_set())
  state, record = _step(rl, rl.start(tiny.ranker(mesh1)), batch)
  assert set(record) == NAMES | COMMON
  assert int(state.step) == 1 and int(state.train.step) == 2
  # The second update is of a policy that has moved: by 10 x lr in the head.
  assert record['ratio_min'] < 0.9 and record['ratio_max'] > 1.1
  assert record['skipped'] == 0 and record['lr'] == np.float32(tiny.RANKED.lr)


def test_explained_lists_have_metrics_of_their_own(mesh1, rl):
  params = tiny.ranker(mesh1)
  before = jax.device_get(params['head'])
  batch = _batch(mesh1, tiny.ranked_set(), 0, KINDS)
  state, record = _step(rl, rl.start(params), batch)
  own = NAMES - JOINT
  assert set(record) == NAMES | COMMON | {f'explained/{x}' for x in own}
  # Two updates, each of both kinds.
  assert int(state.step) == 1 and int(state.train.step) == 2
  after = jax.device_get(state.train.params['head'])
  for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    assert (x != y).all()


def test_each_step_draws_again_by_the_seed(mesh1, rl, draws):
  batch = _batch(mesh1, tiny.ranked_set())
  for trainer in (rl, rl, _trainer(mesh1, seed=4)):
    trainer.step(trainer.start(tiny.ranker(mesh1)), batch)
  np.testing.assert_array_equal(draws[0], draws[1])
  assert (draws[0] != draws[2]).any()
  # The same policy a step later.
  state = rl.start(tiny.ranker(mesh1))
  rl.step(state.replace(step=state.step + 1), batch)
  assert (draws[0] != draws[3]).any()


def test_the_two_prompts_draw_apart(mesh1, rl, draws):
  """Equal lists and utilities would else give equal noise."""
  state = rl.start(tiny.ranker(mesh1))
  batch = _batch(mesh1, tiny.ranked_set(), 0, KINDS)
  rl.step(state, batch)
  assert [x.shape[1] for x in draws] == [tiny.RANKED.rankings, tiny.G]
  assert (draws[0][:, : tiny.G] != draws[1]).any()


def test_no_step_compiles_or_moves_anything_again(mesh1, rl):
  prompts = tiny.ranked_set()
  put = lambda begin: _batch(mesh1, prompts, begin, KINDS)
  state = rl.start(tiny.ranker(mesh1))
  for begin in (0, 8):
    state, _ = rl.step(state, put(begin))
  later = [put(begin) for begin in (16, 4, 12)]
  with tiny.programs() as seen, jax.transfer_guard('disallow'):
    for batch in later:
      state, pairs = rl.step(state, batch)
  assert not seen and int(state.step) == 5
  # One program for lists alone, and one for both kinds.
  assert [f._cache_size() for f in rl._update._compiled.values()] == [2]


def test_eight_devices_make_the_same_step(mesh1, mesh8, rl, draws):
  prompts, records = tiny.ranked_set(), []
  for mesh, trainer in ((mesh1, rl), (mesh8, _trainer(mesh8))):
    batch = _batch(mesh, prompts)
    state = trainer.start(tiny.ranker(mesh))
    records.append(_step(trainer, state, batch)[1])
  np.testing.assert_array_equal(*draws)
  for name in ('reward', 'kept_rate', 'identity_rate', 'place_entropy', 'loss'):
    # The second update follows Adam's first step, which amplifies rounding.
    np.testing.assert_allclose(
      records[0][name], records[1][name], rtol=1e-3, atol=1e-3
    )


def test_a_step_without_variance_does_nothing_and_is_finite(mesh1, rl):
  """One candidate a list: every ranking earns the same."""
  prompts = tiny.ranked_set()
  candidates = prompts.candidates.copy()
  candidates[:, 1:] = -1
  prompts = dataclasses.replace(
    prompts,
    candidates=candidates,
    target=np.zeros_like(prompts.target),
    grades=None,
  )
  params = tiny.ranker(mesh1)
  before = jax.device_get(params)
  batch = _batch(mesh1, prompts, 0, KINDS)
  state, pairs = rl.step(rl.start(params), batch)
  pairs = jax.device_get(pairs)
  assert all(np.isfinite(value).all() for value in pairs.values())
  assert pairs['kept_rate'][0] == pairs['explained/kept_rate'][0] == 0
  jax.tree.map(
    np.testing.assert_array_equal, before, jax.device_get(state.train.params)
  )


def _rewards(mesh, rl, prompts, kinds, steps):
  state, found = rl.start(tiny.ranker(mesh)), []
  for number in range(steps):
    batch = _batch(mesh, prompts, number * tiny.Q, kinds)
    state, record = _step(rl, state, batch)
    found.append(record)
  # The steps are large enough for the clip of one kind of lists or the other;
  # one that teaches nothing has none.
  names = ('clip_fraction', 'explained/clip_fraction')
  assert max(record.get(x, 0.0) for record in found for x in names) > 0
  ends = found[:2], found[-2:]
  return {
    name: [np.mean([record[name] for record in part]) for part in ends]
    for name in ('rank_reward', 'explained/rank_reward')
    if name in found[0]
  }


def test_the_reward_rises_where_a_column_tells(mesh1, rl):
  """The true item has the largest second column, which both heads read."""
  prompts = tiny.ranked_set()
  columns = np.where(prompts.candidates >= 0, prompts.features[..., 1], -9)
  prompts = dataclasses.replace(
    prompts, target=columns.argmax(1).astype(np.int32), grades=None
  )
  found = _rewards(mesh1, rl, prompts, KINDS, 24)
  for first, last in found.values():
    assert last > first + 0.1, found


def test_the_reward_rises_where_a_code_tells(mesh1, rl):
  """No column tells anything: the LM learns which first code is the true one.

  In an order by chance the item earns nothing, at the top (2 - 1) / 3.
  """
  prompts = tiny.ranked_set()
  candidates = prompts.candidates * 0 + np.array([[1, 6, 11]], np.int32)
  prompts = dataclasses.replace(
    prompts,
    candidates=candidates,
    target=np.ones_like(prompts.target),
    features=np.zeros_like(prompts.features),
    grades=None,
    citable=None,
  )
  found = _rewards(mesh1, rl, prompts, (heads.DIRECT,), 16)
  first, last = found['rank_reward']
  assert last > 0.2 and last > first + 0.1, found
