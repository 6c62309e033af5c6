"""Whole RL steps on a tiny LM: metrics, resume, fills, programs, learning."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from gr2_jax import files, sharding
from gr2_jax.lm import decoder
from gr2_jax.rl import groups, prompt_set, rollout, trainer
from gr2_jax.train import loop, metrics
from tests.rl import tiny

# Every setting that changes how a step goes along.
BUSY = dataclasses.replace(
  tiny.CONFIG,
  over_sampling=1.5,
  max_staleness=2,
  old_logps='recomputed',
  tis_cap=2.0,
)


def _rounds(prompts, config=tiny.CONFIG):
  return prompt_set.RoundIterator(
    prompts, config.prompts_per_round, config.max_rounds, seed=5
  )


def _steps(mesh, prompts, count, observe=None):
  """Returns the state, the means of each step, and the trainer."""
  rl = trainer.Trainer(
    tiny.MODEL,
    tiny.CONFIG,
    tiny.FMT,
    prompts,
    mesh=mesh,
    seed=3,
    observe=observe,
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
  keep, prompts = _Keep(), tiny.prompt_set(buckets=(16,))
  state, records, rl = _steps(mesh8, prompts, 1, keep)
  np.testing.assert_array_equal(keep.tokens[0], run[3][0])
  names = ('reward', 'valid_rate', 'answer_tokens', 'fill_rate', 'left_over')
  for name in (*names, 'loss'):
    # The second update follows Adam's first step, which amplifies rounding.
    np.testing.assert_allclose(
      records[0][name], run[1][0][name], rtol=1e-3, atol=1e-3
    )
  assert int(state.train.step) == 2
  # Nor does a step move anything to the devices, or from one to another, but
  # what it lays out again by intention.
  rounds = sharding.shard_batch(mesh8, next(_rounds(prompts)))
  with jax.transfer_guard('disallow'):
    rl._observe = None
    state, _ = rl.step(state, rounds)
  assert int(state.step) == 2


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
  _steps(mesh1, tiny.prompt_set(buckets=(16,)), 1)
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


@pytest.fixture(scope='module')
def busy(mesh1):
  prompts = tiny.prompt_set(buckets=(12, 16))
  return prompts, trainer.Trainer(
    tiny.MODEL, BUSY, tiny.FMT, prompts, mesh=mesh1, seed=3
  )


def _round(prompts, bucket, hopeful):
  """A round in a bucket, of which the first so many lists teach something."""
  fits = [i for i, p in enumerate(prompts.prompts) if len(p) <= bucket]
  longest = max(fits, key=lambda i: len(prompts.prompts[i]))
  rows = np.resize([longest, *fits], BUSY.prompts_per_round)
  lists = prompts.batch(rows)
  assert lists.prompt.shape[1] == bucket
  # One candidate alone: every answer ranks it first.
  mask, target = lists.candidate_mask.copy(), lists.target.copy()
  mask[hopeful:, 1:], target[hopeful:] = False, 0
  return lists.replace(candidate_mask=mask, target=target)


def test_no_step_compiles_or_moves_anything_again(mesh1, busy):
  """Whatever the fill, the leftovers, the rounds and the buckets."""
  prompts, rl = busy
  state = rl.start(tiny.params(mesh1))
  # What each step's rounds hold: (bucket, lists with something to learn).
  first = [[(12, 0), (12, 12)], [(16, 0), (16, 12)]]
  later = [
    [(16, 12), (16, 12)], [(12, 12), (16, 12)], [(12, 0), (12, 0)],
    [(12, 1), (12, 0)], [(16, 12), (12, 12)], [(12, 12), (12, 12)],
  ]  # fmt: skip
  put = lambda step: sharding.shard_batch(
    mesh1, tuple(_round(prompts, *kind) for kind in step)
  )
  with tiny.programs() as seen:
    for rounds in map(put, first):
      state, _ = rl.step(state, rounds)
  assert seen
  records, later = [], [put(step) for step in later]
  with tiny.programs() as seen, jax.transfer_guard('disallow'):
    for rounds in later:
      state, pairs = rl.step(state, rounds)
      records.append(jax.device_get(pairs))
  assert not seen
  assert [f._cache_size() for f in rl._update._compiled.values()] == [2]
  records = [metrics.means(pairs) for pairs in records]
  # The steps did differ.
  fills = [record['fill_rate'] for record in records]
  assert max(fills) == 1 and min(fills) < 0.3
  assert {record['rounds'] for record in records} >= {1, 2}
  assert max(record['left_over'] for record in records) > 0


def test_recomputed_log_probs_are_those_before_the_step(mesh1, busy):
  """A sampler that gave half the chance: the ratio knows nothing of it."""
  prompts, rl = busy
  state = rl.start(tiny.params(mesh1))
  rounds = sharding.shard_batch(mesh1, (_round(prompts, 16, 12),) * 2)
  buffer, _ = rl._fill(state, rounds)
  half = buffer.sampler_logps - np.log(2)
  wrong = buffer.replace(sampler_logps=half, old_logps=half)
  _, pairs = rl._learn(state.train, wrong)
  record = metrics.means(jax.device_get(pairs))
  # Rounding, in log-probs of about -10.
  np.testing.assert_allclose(record['sampler_gap'], np.log(2), rtol=1e-3)
  np.testing.assert_allclose(record['tis_weight'], 2, rtol=1e-3)
  # Of the first update it is one, of the sampler's it would be two.
  assert 0.5 < record['ratio'] < 1.5


def test_updates_that_are_not_finite_are_skipped_and_counted(mesh1, busy):
  prompts, rl = busy
  state = rl.start(tiny.params(mesh1))
  rounds = sharding.shard_batch(mesh1, (_round(prompts, 16, 12),) * 2)
  buffer, _ = rl._fill(state, rounds)
  before = jax.device_get(state.train.params)
  wrong = buffer.replace(advantages=buffer.advantages * np.nan)
  train, pairs = rl._learn(state.train, wrong)
  jax.tree.map(
    np.testing.assert_array_equal, before, jax.device_get(train.params)
  )
  assert [float(x) for x in pairs['skipped']] == [2, 2]


def test_leftovers_that_fill_a_step_spare_its_rollouts(mesh1, busy):
  prompts, rl = busy
  state = rl.start(tiny.params(mesh1))
  rounds = sharding.shard_batch(mesh1, (_round(prompts, 16, 12),) * 2)
  buffer, _ = rl._fill(state, rounds)
  state, pairs = rl.step(state.replace(buffer=buffer), rounds)
  record = metrics.means(jax.device_get(pairs))
  assert record['rounds'] == 0 and record['fill_rate'] == 1
  assert 'loss' in record and 'reward' not in record
  # Means over steps take each name from the steps that have it.
  _, more = rl.step(state, rounds)
  both = metrics.means(jax.device_get(metrics.combine(pairs, more)))
  assert both['reward'] == metrics.means(jax.device_get(more))['reward']
  assert both['rounds'] > 0


def _fit(mesh, busy, directory, steps):
  prompts, rl = busy
  return loop.Loop(
    step_fn=rl.step,
    iterator=_rounds(prompts, BUSY),
    num_steps=steps,
    directory=directory,
    mesh=mesh,
    ckpt_every=2,
    log_every=1,
    show='reward',
  ).fit(rl.start(tiny.params(mesh)))


def test_a_killed_run_ends_with_the_same_bits(
  mesh1, busy, tmp_path, killed_after
):
  """Policy, optimiser, place in the data, RNG, and groups left over."""
  whole = _fit(mesh1, busy, tmp_path / 'whole', 4)
  # The fourth step ends between its updates and its checkpoint.
  with killed_after(groups, 'carry', 3):
    _fit(mesh1, busy, tmp_path / 'cut', 4)
  kept = _fit(mesh1, busy, tmp_path / 'cut', 2)
  assert int(kept.step) == 2 and kept.buffer.weight.sum() > 0
  assert kept.buffer.age.max() > 0
  resumed = _fit(mesh1, busy, tmp_path / 'cut', 4)
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.device_get(whole),
    jax.device_get(resumed),
  )
  texts = [
    (tmp_path / name / 'metrics.jsonl').read_text() for name in ('whole', 'cut')
  ]
  assert texts[0] == texts[1] and texts[0].count('\n') == 4
  assert json.loads(texts[0].splitlines()[1])['left_over'] > 0
  times = list(files.read_jsonl(tmp_path / 'cut' / 'timing.jsonl'))
  assert [record['step'] for record in times] == [1, 2, 3, 4]
  for name in ('tokens_per_second', 'rollout_seconds', 'update_seconds'):
    assert times[0][name] > 0


def test_a_student_comes_closer_to_its_teacher(mesh1):
  """On its own answers, rewards set aside: the KL falls."""
  shape = dataclasses.replace(tiny.MODEL, width=24, heads=3, kv_heads=3)
  made = decoder.init(shape, mesh1, sharding.TRAIN_RULES, jax.random.key(9))
  teacher = jax.tree.map(lambda x: x * 3 if x.ndim > 1 else x, made)
  config = dataclasses.replace(
    tiny.CONFIG,
    kl=1.0,
    reference='sft',
    reward_weight=0.0,
    dynamic_sampling=False,
    max_rounds=1,
  )
  prompts = tiny.prompt_set(buckets=(16,))
  rl = trainer.Trainer(
    tiny.MODEL,
    config,
    tiny.FMT,
    prompts,
    mesh=mesh1,
    seed=3,
    reference=(shape, teacher),
  )
  state, rounds, kl = rl.start(tiny.params(mesh1)), _rounds(prompts, config), []
  for _ in range(8):
    state, pairs = rl.step(state, sharding.shard_batch(mesh1, next(rounds)))
    record = metrics.means(jax.device_get(pairs))
    assert record['fill_rate'] == 1 and record['left_over'] == 0
    kl.append(record['kl'])
  assert kl[-1] < kl[0] / 2


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


# --- Epochs in which no group qualified are counted from the records.


def _record(step, rounds, fill):
  return {'step': step, 'rounds': rounds, 'fill_rate': fill}


def test_prompts_since_a_group_qualified():
  count = lambda *records: trainer.barren_prompts(records, tiny.CONFIG)
  assert count() == 0
  assert count(_record(1, 2.0, 0.0)) == 2 * tiny.Q
  assert count(_record(1, 2.0, 0.0), _record(2, 1.0, 0.5)) == 0
  # A record of three steps, one of a validation, one of a step.
  found = count(
    _record(1, 1.0, 1.0),
    _record(4, 2.0, 0.0),
    {'step': 4, 'valid_ndcg@5': 0.4},
    _record(5, 2.0, 0.0),
  )
  assert found == 8 * tiny.Q
  config = dataclasses.replace(tiny.CONFIG, over_sampling=2.0)
  assert trainer.barren_prompts([_record(1, 2.0, 0.0)], config) == 4 * tiny.Q


def test_the_message_names_what_happened_and_a_remedy():
  text = trainer.barren_message(48, 3, 0, tiny.CONFIG)
  assert '3 of 4 steps and 0 updates' in text and '48 prompts' in text
  assert 'rl.group_size' in text
