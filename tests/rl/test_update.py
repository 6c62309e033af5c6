"""What the settings of the update do, on rollouts that are sampled once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gr2_jax import sharding
from gr2_jax.decode import constrain
from gr2_jax.lm import decoder
from gr2_jax.rl import groups, objective, rollout, trainer
from gr2_jax.train import metrics

# Larger than the policy, of the same vocabulary.
TEACHER = dataclasses.replace(tiny.MODEL, width=24, heads=3, kv_heads=3)
DISTIL = {'kl': 0.5, 'reference': 'sft'}


@pytest.fixture(scope='module')
def sampled(mesh1):
  """Parameters, and Q groups that they sampled, each with some advantage."""
  params = tiny.params(mesh1)
  with sharding.use(mesh1, sharding.DECODE_RULES):
    found = rollout.roll_out(
      tiny.MODEL,
      tiny.CONFIG,
      tiny.FMT,
      params,
      tiny.lists(mesh1),
      jax.random.key(0),
      tiny.TEMPERATURE,
      tiny.G,
    ).groups
  advantages = np.tile([1.0, -1.0, 0.5, -0.5], (tiny.Q, 1))
  return params, found.replace(
    advantages=jnp.array(advantages, jnp.float32),
    weight=jnp.ones(tiny.Q, jnp.float32),
  )


@pytest.fixture(scope='module')
def teacher(mesh1):
  made = decoder.init(TEACHER, mesh1, sharding.TRAIN_RULES, jax.random.key(7))
  return jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, made)


@functools.lru_cache
def _trainer(mesh, config):
  prompts = tiny.prompt_set(buckets=(16,))
  return trainer.Trainer(tiny.MODEL, config, tiny.FMT, prompts, mesh, seed=3)


def _learn(mesh, sampled, **changes):
  """Makes the updates of a step; returns parameters and means."""
  params, found = sampled
  rl = _trainer(mesh, dataclasses.replace(tiny.CONFIG, **changes))
  state = rl.start(params)
  with sharding.use(mesh, sharding.TRAIN_RULES):
    buffer = groups.fill(state.buffer, found)
  train, pairs = rl._learn(state.train, buffer)
  assert int(train.step) == 2
  return jax.device_get(train.params), metrics.means(jax.device_get(pairs))


def _distance(one, other):
  gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
  return max(jax.tree.leaves(gaps))


@pytest.fixture(scope='module')
def plain(mesh1, sampled):
  return _learn(mesh1, sampled)


def test_eps_high_changes_what_is_learned(mesh1, sampled, plain):
  """The clip of the second update stops tokens whose chance rose too much."""
  params, record = plain
  narrow, narrow_record = _learn(mesh1, sampled, eps_high=0.01)
  wide, wide_record = _learn(mesh1, sampled, eps_high=100.0)
  assert narrow_record['ratio_max'] > 1.28
  assert (
    narrow_record['clip_fraction']
    > record['clip_fraction']
    > wide_record['clip_fraction']
    > 0  # The lower clip is at work, too.
  )
  # Adam's steps are of the size of the learning rate, 0.01.
  assert _distance(params, narrow) > 1e-3
  assert _distance(params, wide) > 1e-3


@functools.lru_cache
def _jitted(config, reference):
  return jax.jit(objective.make_loss(tiny.MODEL, config, tiny.FMT, reference))


def _loss(config, params, batch, *frozen, reference=None):
  total, count, pairs = _jitted(config, reference)(params, batch, *frozen)
  return float(total), float(count), metrics.means(jax.device_get(pairs))


def test_recomputed_are_the_trainers_own_but_for_stale_groups(mesh1, sampled):
  params, found = sampled
  # As if the sampler's program gave every chosen token half its chance.
  half = found.sampler_logps - np.log(2)
  age = jnp.arange(tiny.Q) % 2
  found = found.replace(sampler_logps=half, old_logps=half, age=age)
  given = tiny.MODEL, tiny.CONFIG, tiny.FMT, params
  with sharding.use(mesh1, sharding.TRAIN_RULES):
    again = objective.recompute(*given, found)
    own, _ = jax.jit(lambda p, g: objective.score(*given[:3], p, g))(
      params, found
    )
  mask, stale = np.asarray(found.mask), np.asarray(age) > 0
  gap = np.where(mask, np.abs(again.old_logps - own), 0)
  # One program and another of the same: rounding.
  assert gap[~stale].max() < 1e-5
  np.testing.assert_array_equal(again.old_logps[stale], half[stale])
  np.testing.assert_array_equal(again.sampler_logps, half)


def test_a_step_with_recomputed_starts_at_a_ratio_of_one(mesh1, sampled):
  params, found = sampled
  wrong = found.replace(
    sampler_logps=found.sampler_logps - 0.7, old_logps=found.old_logps - 0.7
  )
  _, record = _learn(mesh1, (params, wrong), old_logps='recomputed')
  assert abs(record['sampler_gap'] - 0.7) < 1e-3
  # Updates of one mini-batch each: half of the tokens are at exactly one.
  _, given = _learn(mesh1, (params, wrong))
  assert record['ratio'] < 1.5 < given['ratio']


def test_truncated_weights_scale_the_surrogate(sampled):
  """A sampler that gave 2/3 of the chance: weights of 1.5, or of the cap."""
  params, found = sampled
  change = lambda **kw: dataclasses.replace(
    tiny.CONFIG, old_logps='recomputed', **kw
  )
  found = found.replace(sampler_logps=found.old_logps - np.log(1.5))
  total, count, record = _loss(change(), params, found)
  assert 'tis_weight' not in record
  for cap, weight, capped in ((1.2, 1.2, 1.0), (4.0, 1.5, 0.0)):
    more, n, record = _loss(change(tis_cap=cap), params, found)
    assert n == count
    np.testing.assert_allclose(more, weight * total, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(record['tis_weight'], weight, rtol=1e-5)
    assert record['tis_capped'] == capped


def _distributions(shape, params, found):
  """Returns the distributions of all tokens [Q, G, S, V], one row each."""
  apply = jax.jit(decoder.Decoder(shape).apply)
  q, g, s = found.tokens.shape
  out = np.zeros((q, g, s, shape.vocab_size))
  banned = constrain.banned(tiny.FMT, shape.vocab_size)
  for i in range(q):
    prompt = found.prompt[i][found.prompt_valid[i]]
    rows = np.zeros((g, 40), np.int32)
    rows[:, : len(prompt)] = prompt
    rows[:, len(prompt) : len(prompt) + s] = found.tokens[i]
    logits = np.asarray(apply({'params': params}, rows), np.float64)
    for t in range(s):
      row = logits[:, len(prompt) + t - 1] / tiny.CONFIG.temperature
      allowed = found.allowed[i, :, t]
      for j in range(g):
        ids = allowed[j][allowed[j] >= 0]
        ids = ids if len(ids) else np.flatnonzero(~banned)
        p = np.exp(row[j, ids] - row[j, ids].max())
        out[i, j, t, ids] = p / p.sum()
  return out


def test_kl_and_entropy_equal_whole_distributions(sampled, teacher):
  params, found = sampled
  found = found.replace(weight=found.weight.at[2].set(0.0))
  config = dataclasses.replace(tiny.CONFIG, **DISTIL, entropy_bonus=0.25)
  plain, count, _ = _loss(tiny.CONFIG, params, found)
  total, n, record = _loss(config, params, found, teacher, reference=TEACHER)
  host = jax.device_get(found)
  p = _distributions(tiny.MODEL, params, host)
  q = _distributions(TEACHER, teacher, host)
  safe = lambda x: np.log(np.where(x > 0, x, 1))
  mask = host.mask & (host.weight > 0)[:, None, None]
  kl = (p * (safe(p) - safe(q))).sum(-1)[mask]
  entropy = -(p * safe(p)).sum(-1)[mask]
  assert n == count == mask.sum() and kl.mean() > 0.05
  # float32 sums of thousands of terms, of which some cancel.
  np.testing.assert_allclose(record['kl'], kl.mean(), rtol=1e-3)
  want = plain + 0.5 * kl.sum() - 0.25 * entropy.sum()
  np.testing.assert_allclose(total, want, rtol=1e-3)
  alone = dataclasses.replace(config, reward_weight=0.0, entropy_bonus=0.0)
  total, _, _ = _loss(alone, params, found, teacher, reference=TEACHER)
  np.testing.assert_allclose(total, 0.5 * kl.sum(), rtol=1e-3)


def test_sequence_level_divides_all_terms_by_answers(sampled, teacher):
  """The whole is the sum of its groups, and each answer counts the same."""
  params, found = sampled
  config = dataclasses.replace(
    tiny.CONFIG, **DISTIL, loss_level='sequence', entropy_bonus=0.1
  )
  run = lambda batch: _loss(config, params, batch, teacher, reference=TEACHER)
  total, count, _ = run(found)
  assert count == tiny.Q * tiny.G
  parts = [
    run(found.replace(weight=jnp.zeros(tiny.Q).at[i].set(1.0)))
    for i in range(tiny.Q)
  ]
  np.testing.assert_allclose(sum(p[0] for p in parts), total, rtol=1e-3)
  assert [p[1] for p in parts] == [tiny.G] * tiny.Q


def test_the_reference_must_fit(mesh1, teacher):
  config = dataclasses.replace(tiny.CONFIG, **DISTIL)
  prompts = tiny.prompt_set(buckets=(16,))
  make = lambda config, reference: trainer.Trainer(
    tiny.MODEL, config, tiny.FMT, prompts, mesh1, 3, reference=reference
  )
  with pytest.raises(ValueError, match=r'rl\.kl = 0.5.*missing'):
    make(config, None)
  with pytest.raises(ValueError, match=r'rl\.kl = 0.0.*given'):
    make(tiny.CONFIG, (TEACHER, teacher))
  other = dataclasses.replace(TEACHER, vocab_size=80)
  with pytest.raises(ValueError, match='80.*64'):
    make(config, (other, teacher))
