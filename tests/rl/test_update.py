"""What the settings of the update do, on rollouts that are sampled once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import constrain
from gr2_jax.lm import decoder
from gr2_jax.rl import groups, objective, rollout, trainer
from gr2_jax.train import metrics
from tests.rl import tiny

# Larger than the policy, of the same vocabulary.
TEACHER = dataclasses.replace(tiny.MODEL, width=24, heads=3, kv_heads=3)


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
      key=jax.random.key(0),
      temperature=tiny.TEMPERATURE,
      num_samples=tiny.G,
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


def _learn(mesh, sampled, **changes):
  """Makes the updates of a step; returns parameters and means."""
  params, found = sampled
  config = dataclasses.replace(tiny.CONFIG, **changes)
  prompts = tiny.prompt_set(buckets=(16,))
  rl = trainer.Trainer(tiny.MODEL, config, tiny.FMT, prompts, mesh=mesh, seed=3)
  state = rl.start(params)
  with sharding.use(mesh, sharding.TRAIN_RULES):
    buffer = groups.fill(state.buffer, found)
  train, pairs = rl._learn(state.train, buffer)
  assert int(train.step) == 2
  return jax.device_get(train.params), metrics.means(jax.device_get(pairs))


def test_eps_high_changes_what_is_learned(mesh1, sampled):
  """The clip of the second update stops tokens whose chance rose too much."""
  wide, wide_record = _learn(mesh1, sampled)
  narrow, record = _learn(mesh1, sampled, eps_high=0.01)
  assert wide_record['ratio_max'] > 1.28
  assert record['clip_fraction'] > wide_record['clip_fraction'] > 0
  # Adam's steps are of the size of the learning rate, 0.01.
  gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), wide, narrow)
  assert max(jax.tree.leaves(gaps)) > 1e-3


@functools.lru_cache
def _jitted(config, reference):
  return jax.jit(objective.make_loss(tiny.MODEL, config, tiny.FMT, reference))


def _loss(config, params, batch, *frozen, reference=None):
  total, count, pairs = _jitted(config, reference)(params, batch, *frozen)
  return float(total), float(count), metrics.means(jax.device_get(pairs))


def _halves():
  """Weights of the first and of the last half of the groups."""
  late = (jnp.arange(tiny.Q) >= tiny.Q // 2).astype(jnp.float32)
  return 1 - late, late


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


def test_truncated_weights_scale_the_surrogate(sampled):
  """Samplers that gave 2/3 and 10/11 of the chance, and a cap of 1.2."""
  params, found = sampled
  config = dataclasses.replace(tiny.CONFIG, old_logps='recomputed', tis_cap=1.2)
  early, late = _halves()
  ratio = jnp.where(late > 0, 1.5, 1.1)[:, None, None]
  found = found.replace(sampler_logps=found.old_logps - jnp.log(ratio))
  halves = [found.replace(weight=half) for half in (early, late)]
  plain = [_loss(tiny.CONFIG, params, half) for half in halves]
  assert 'tis_weight' not in plain[0][2]
  got = [_loss(config, params, half) for half in halves]
  for (total, count, record), weight, before in zip(
    got, (1.1, 1.2), plain, strict=True
  ):
    assert count == before[1]
    np.testing.assert_allclose(total, weight * before[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(record['tis_weight'], weight, rtol=1e-4)
  assert [record['tis_capped'] for _, _, record in got] == [0, 1]


def _distributions(shape, params, found):
  """Returns the distributions of all tokens [Q, G, S, V], one row each."""
  apply = jax.jit(decoder.Decoder(shape).apply)
  q, g, s = found.tokens.shape
  out = np.zeros((q, g, s, shape.vocab_size))
  banned = constrain.banned(tiny.FMT, shape.vocab_size)
  for i in range(q):
    prompt = found.prompt[i][found.prompt_valid[i]]
    rows = np.zeros((g, 48), np.int32)
    rows[:, : len(prompt)] = prompt
    rows[:, len(prompt) : len(prompt) + s] = found.tokens[i]
    logits = np.asarray(apply({'params': params}, rows), np.float64)
    for t in range(s):
      row = logits[:, len(prompt) + t - 1] / tiny.CONFIG.temperature
      allowed = found.allowed[i, :, t]
      for j in range(g):
        ids = allowed[j][allowed[j] >= 0]
        if not len(ids):
          ids = np.flatnonzero(~banned)
          ids = ids[ids != -2 - allowed[j][0]]
        p = np.exp(row[j, ids] - row[j, ids].max())
        out[i, j, t, ids] = p / p.sum()
  return out


def test_terms_equal_those_of_whole_distributions(sampled, teacher):
  """Surrogate, KL and entropy, each a mean over the tokens of an answer."""
  params, found = sampled
  weight = found.weight.at[2].set(0.0)
  # Their sum over a group is then not zero.
  found = found.replace(weight=weight, advantages=found.advantages + 0.3)
  config = dataclasses.replace(
    tiny.CONFIG,
    kl=0.5,
    reference='sft',
    entropy_bonus=0.25,
    reward_weight=0.75,
    loss_level='sequence',
  )
  run = lambda batch: _loss(config, params, batch, teacher, reference=TEACHER)
  total, count, record = run(found)
  host = jax.device_get(found)
  p = _distributions(tiny.MODEL, params, host)
  q = _distributions(TEACHER, teacher, host)
  log = lambda x: np.log(np.where(x > 0, x, 1))
  mask = host.mask & (host.weight > 0)[:, None, None]
  kl, entropy = (p * (log(p) - log(q))).sum(-1), -(p * log(p)).sum(-1)
  assert kl[mask].mean() > 0.05
  # float32 sums of thousands of terms, of which some cancel.
  np.testing.assert_allclose(record['kl'], kl[mask].mean(), rtol=1e-3)
  mean = lambda x: np.where(mask, x, 0).sum(-1) / host.mask.sum(-1)
  # The ratio is one: the surrogate of an answer is its advantage.
  want = -0.75 * host.advantages + 0.5 * mean(kl) - 0.25 * mean(entropy)
  want = want[host.weight > 0]
  np.testing.assert_allclose(total, want.sum(), rtol=1e-3)
  assert count == want.size == 7 * tiny.G
  parts = [run(found.replace(weight=weight * half)) for half in _halves()]
  np.testing.assert_allclose(sum(p[0] for p in parts), total, rtol=1e-3)
  assert sum(p[1] for p in parts) == count


def test_the_reference_must_fit(mesh1, teacher):
  config = dataclasses.replace(tiny.CONFIG, kl=0.5, reference='sft')
  prompts = tiny.prompt_set(buckets=(16,))
  make = lambda config, reference: trainer.Trainer(
    tiny.MODEL,
    config,
    tiny.FMT,
    prompts,
    mesh=mesh1,
    seed=3,
    reference=reference,
  )
  with pytest.raises(ValueError, match=r'rl\.kl = 0.5.*missing'):
    make(config, None)
  with pytest.raises(ValueError, match=r'rl\.kl = 0.0.*given'):
    make(tiny.CONFIG, (TEACHER, teacher))
  other = dataclasses.replace(TEACHER, vocab_size=80)
  with pytest.raises(ValueError, match='80.*64'):
    make(config, (other, teacher))
