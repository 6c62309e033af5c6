"""Whole RL steps on a tiny LM: metrics, resume, empty fills, learning."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from gr2_jax import files, sharding
from gr2_jax.rl import prompt_set, rollout, trainer
from gr2_jax.train import loop, metrics


def _rounds(prompts):
  return prompt_set.RoundIterator(
    prompts, tiny.CONFIG.prompts_per_step, tiny.CONFIG.max_rounds, seed=5
  )


def _steps(mesh, prompts, count, observe=None):
  """Returns the state, the means of each step, and the trainer."""
  rl = trainer.Trainer(
    tiny.MODEL, tiny.CONFIG, tiny.FMT, prompts, mesh, 3, observe
  )
  state, rounds = rl.start(tiny.params(mesh)), _rounds(prompts)
  records = []
  for _ in range(count):
    state, pairs = rl.step(state, sharding.shard_batch(mesh, next(rounds)))
    records.append(metrics.means(jax.device_get(pairs)))
  return state, records, rl


class _Keep:
  """Keeps the tokens of each step's first round."""

  def __init__(self):
    self.tokens = []

  def __call__(self, step, lists, rollouts):
    assert step == len(self.tokens)
    self.tokens.append(np.asarray(rollouts.groups.tokens))


@pytest.fixture(scope='module')
def run(mesh1):
  keep = _Keep()
  found = _steps(mesh1, tiny.prompt_set(buckets=(16,)), 3, keep)
  found[2]._observe = None
  return (*found, keep.tokens)


def test_every_step_logs_gap_and_ratio(run):
  for record in run[1]:
    # The parameters are those of the sampler in the first update.
    assert record['sampler_gap'] < 1e-4
    assert 0 < record['ratio_min'] < 1 < record['ratio_max']
    assert record['ratio_min'] < record['ratio'] < record['ratio_max']
    assert record['entropy'] > 0
    assert 0 < record['fill_rate'] <= 1
    assert {'reward', 'rank_reward', 'valid_rate', 'identity_rate'} <= set(
      record
    )


def test_the_clip_acts_from_the_second_update_on(run):
  assert max(record['clip_fraction'] for record in run[1]) > 0


def test_updates_are_two_a_rollout(run):
  state = run[0]
  assert int(state.step) == 3 and int(state.train.step) == 6


def test_eight_devices_sample_and_learn_the_same(mesh8, run):
  keep = _Keep()
  state, records, _ = _steps(mesh8, tiny.prompt_set(buckets=(16,)), 1, keep)
  np.testing.assert_array_equal(keep.tokens[0], run[3][0])
  for name in ('reward', 'valid_rate', 'answer_tokens', 'fill_rate', 'loss'):
    # The second update follows Adam's first step, which amplifies rounding.
    np.testing.assert_allclose(
      records[0][name], run[1][0][name], rtol=1e-3, atol=1e-3
    )
  assert int(state.train.step) == 2


def _hopeless():
  """Lists with one real candidate: every answer ranks it first."""
  prompts = tiny.prompt_set(buckets=(16,))
  candidates = prompts.candidates.copy()
  candidates[:, 1:] = -1
  target = np.zeros_like(prompts.target)
  return dataclasses.replace(prompts, candidates=candidates, target=target)


def test_groups_without_variance_neither_train_nor_raise(mesh1):
  prompts = _hopeless()
  before = jax.device_get(tiny.params(mesh1))
  compiled = rollout.roll_out._cache_size()
  state, records, _ = _steps(mesh1, prompts, 2)
  assert [r['fill_rate'] for r in records] == [0, 0]
  assert [r['rounds'] for r in records] == [tiny.CONFIG.max_rounds] * 2
  assert 'loss' not in records[0] and int(state.train.step) == 0
  jax.tree.map(
    np.testing.assert_array_equal, before, jax.device_get(state.train.params)
  )
  # The shapes are those of any other step.
  assert rollout.roll_out._cache_size() == compiled


def test_partial_fills_do_not_recompile(mesh1, run):
  rl = run[2]
  prompts, empty = tiny.prompt_set(buckets=(16,)), _hopeless()
  for hopeful in (1, 3):
    good, bad = prompts.batch(np.arange(8)), empty.batch(np.arange(8))
    rows = np.arange(8) < hopeful
    mixed = jax.tree.map(
      lambda a, b, rows=rows: np.where(
        rows.reshape((8,) + (1,) * (a.ndim - 1)), a, b
      ),
      good,
      bad,
    )
    state, pairs = rl.step(
      rl.start(tiny.params(mesh1)), sharding.shard_batch(mesh1, (mixed,))
    )
    record = metrics.means(jax.device_get(pairs))
    assert record['fill_rate'] <= hopeful / 8
    assert int(state.train.step) <= min(hopeful, 2)
  assert [f._cache_size() for f in rl._update._compiled.values()] == [1]


def _fit(mesh, rl, prompts, directory, steps):
  return loop.fit(
    rl.start(tiny.params(mesh)),
    rl.step,
    _rounds(prompts),
    steps,
    directory,
    mesh,
    ckpt_every=2,
    log_every=1,
    show='reward',
  )


def test_a_resumed_run_ends_with_the_same_bits(mesh1, run, tmp_path):
  prompts, rl = tiny.prompt_set(buckets=(16,)), run[2]
  whole = _fit(mesh1, rl, prompts, tmp_path / 'whole', 4)
  _fit(mesh1, rl, prompts, tmp_path / 'cut', 2)
  resumed = _fit(mesh1, rl, prompts, tmp_path / 'cut', 4)
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.device_get(whole),
    jax.device_get(resumed),
  )
  timing = ('tokens_per_second', 'rollout_seconds', 'update_seconds')
  records = [
    [
      {k: v for k, v in record.items() if k not in timing}
      for record in files.read_jsonl(tmp_path / name / 'metrics.jsonl')
    ]
    for name in ('whole', 'cut')
  ]
  assert records[0] == records[1] and len(records[0]) == 4


def test_the_reward_rises(mesh1, run):
  """The true item stands second in every list: a rule that RL can find."""
  prompts = tiny.prompt_set(buckets=(16,))
  target = np.full_like(prompts.target, 1)
  sids = prompts.candidates[:, :1] * 0 + np.array([[1, 6, 11]], np.int32)
  prompts = dataclasses.replace(prompts, candidates=sids, target=target)
  rl, rounds = run[2], _rounds(prompts)
  state, rewards = rl.start(tiny.params(mesh1)), []
  for _ in range(12):
    state, pairs = rl.step(state, sharding.shard_batch(mesh1, next(rounds)))
    rewards.append(metrics.means(jax.device_get(pairs))['rank_reward'])
    if rewards[-1] > 0.3:
      break
  # At most (2 - 1) / 3; a random order of three earns 0.
  assert rewards[-1] > 0.25 > rewards[0]
