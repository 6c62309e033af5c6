"""Rollouts on a tiny LM: rewards, RNG, meshes, compilations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import sampler
from gr2_jax.rl import rewards, rollout
from tests.rl import tiny


def _roll(mesh, config=tiny.CONFIG, key=0, seed=0):
  params = tiny.params(mesh, sharding.DECODE_RULES, seed)
  lists = tiny.lists(mesh)
  with sharding.use(mesh, sharding.DECODE_RULES):
    return jax.device_get(
      rollout.roll_out(
        tiny.MODEL,
        config,
        tiny.FMT,
        params,
        lists,
        key=jax.random.key(key),
        temperature=tiny.TEMPERATURE,
        num_samples=tiny.G,
      )
    )


@pytest.fixture(scope='module')
def rolled(mesh1):
  return _roll(mesh1)


def _read(tokens, candidates, mask):
  """The ranked candidates of one valid answer, read in Python."""
  tokens = tokens[mask].tolist()
  entries = tokens[tokens.index(tiny.FMT.mid) + 1 : -2]
  names = [
    [tiny.FMT.sid_offset + i * tiny.C + c for i, c in enumerate(sid)]
    for sid in candidates
  ]
  width = tiny.L + 1
  return [
    names.index(entries[i : i + tiny.L]) for i in range(0, len(entries), width)
  ]


def test_rewards_are_those_of_the_answers_read_in_python(rolled):
  lists = tiny.prompt_set(buckets=(16,)).batch(np.arange(tiny.Q))
  assert rolled.valid.all()
  for q in range(tiny.Q):
    count = int(lists.candidate_mask[q].sum())
    for g in range(tiny.G):
      mask = rolled.groups.mask[q, g]
      order = _read(
        rolled.groups.tokens[q, g], lists.candidate_sids[q][:count], mask
      )
      after = order.index(lists.target[q]) + 1
      assert after == rolled.rank_after[q, g]
      assert rolled.identity[q, g] == (order == list(range(count)))
      ranks = (lists.target[q] + 1, after, True, count)
      expected = rewards.conditional(
        *ranks, alpha=0.2, invalid=-1.0
      ) + rewards.overlong(mask.sum(), tiny.S, 2)
      np.testing.assert_allclose(rolled.rewards[q, g], expected, atol=1e-6)


def test_words_cite_what_prompts_show_and_end_with_the_first_item(rolled):
  lists = tiny.prompt_set(buckets=(16,)).batch(np.arange(tiny.Q))
  fmt, cited = tiny.FMT, 0
  offsets = fmt.sid_offset + np.arange(tiny.L) * tiny.C
  for q, g in np.ndindex(tiny.Q, tiny.G):
    tokens = rolled.groups.tokens[q, g][rolled.written[q, g]].tolist()
    shown = (lists.citable_sids[q][lists.citable_mask[q]] + offsets).tolist()
    words, rest = (
      tokens[1 : tokens.index(fmt.top)],
      tokens[tokens.index(fmt.top) :],
    )
    starts = [i for i, token in enumerate(words) if token == fmt.sid_begin]
    for i in starts:
      assert words[i + 1 : i + 1 + tiny.L] in shown
      assert words[i + 1 + tiny.L] == fmt.sid_end
    codes = [token for token in words if token >= fmt.sid_offset]
    assert len(codes) == tiny.L * len(starts), 'no code outside of a citation'
    assert len(words) <= tiny.CONFIG.explanation_tokens
    cited += len(starts)
    order = _read(
      rolled.groups.tokens[q, g],
      lists.candidate_sids[q][lists.candidate_mask[q]],
      rolled.written[q, g],
    )
    first = (lists.candidate_sids[q, order[0]] + offsets).tolist()
    assert rest[: tiny.L + 3] == [fmt.top, fmt.sid_begin, *first, fmt.sid_end]
  assert cited > 2


def test_groups_are_kept_by_the_rank_reward(rolled):
  spread = np.ptp(rolled.rank_rewards, axis=1)
  np.testing.assert_array_equal(rolled.groups.weight, spread > 0)


def test_overlong_alone_keeps_no_group():
  """Answers of one rank but two lengths: the shaped rewards differ alone."""
  lists = tiny.prompt_set(buckets=(16,)).batch(np.arange(1, 2))
  names = [
    [tiny.FMT.sid_offset + i * tiny.C + c for i, c in enumerate(sid)]
    for sid in lists.candidate_sids[0]
  ]
  tokens = np.zeros((1, 2, tiny.S), np.int32)
  mask = np.zeros((1, 2, tiny.S), bool)
  for g, words in enumerate(([20], [20, 21, 22, 23])):
    first = [tiny.FMT.sid_begin, *names[0], tiny.FMT.sid_end]
    row = [tiny.FMT.open, *words, tiny.FMT.top, *first, tiny.FMT.mid]
    for place, name in enumerate(names):
      row += [tiny.FMT.sep, *name] if place else name
    row += [tiny.FMT.close, tiny.FMT.eos]
    tokens[0, g, : len(row)], mask[0, g, : len(row)] = row, True
  samples = sampler.Samples(
    tokens=jnp.array(tokens),
    logps=jnp.zeros(tokens.shape),
    behaviour_logps=jnp.zeros(tokens.shape),
    mask=jnp.array(mask),
    allowed=jnp.full((*tokens.shape, tiny.K), -1),
  )
  config = dataclasses.replace(tiny.CONFIG, overlong_buffer=8)
  reward = jax.jit(rollout.reward, static_argnums=(0, 1))
  rolled = reward(config, tiny.FMT, lists, samples)
  assert rolled.valid.all() and rolled.identity.all()
  # 18 and 21 tokens of 25: 1/8 and 4/8 of the penalty.
  spread = rolled.rewards[0, 0] - rolled.rewards[0, 1]
  np.testing.assert_allclose(spread, 3 / 8, atol=1e-6)
  np.testing.assert_array_equal(rolled.groups.weight, [0])


def test_two_steps_differ_and_a_step_repeats(mesh1, rolled):
  compiled = rollout.roll_out._cache_size()
  again = _roll(mesh1)
  other = _roll(mesh1, key=1)
  np.testing.assert_array_equal(again.groups.tokens, rolled.groups.tokens)
  assert (other.groups.tokens != rolled.groups.tokens).any()
  # Parameters are an argument: others give others without compiling.
  trained = _roll(mesh1, seed=1)
  assert (trained.groups.tokens != rolled.groups.tokens).any()
  assert rollout.roll_out._cache_size() == compiled


def test_masks_come_from_the_sampler_and_hold_the_eos(rolled):
  tokens, mask = rolled.groups.tokens, rolled.groups.mask
  assert mask.dtype == bool
  for row, kept in zip(
    tokens.reshape(-1, tiny.S), mask.reshape(-1, tiny.S), strict=True
  ):
    ended = np.flatnonzero(row == tiny.FMT.eos)
    np.testing.assert_array_equal(np.flatnonzero(kept), np.arange(ended[0] + 1))


def test_causal_credit_ends_with_the_true_item(mesh1, rolled):
  config = dataclasses.replace(tiny.CONFIG, credit='causal')
  causal = _roll(mesh1, config)
  lists = tiny.prompt_set(buckets=(16,)).batch(np.arange(tiny.Q))
  np.testing.assert_array_equal(causal.groups.tokens, rolled.groups.tokens)
  np.testing.assert_array_equal(causal.written, rolled.written)
  np.testing.assert_array_equal(
    causal.groups.advantages, rolled.groups.advantages
  )
  for q in range(tiny.Q):
    target = lists.candidate_sids[q, lists.target[q]]
    name = tiny.FMT.sid_offset + np.arange(tiny.L) * tiny.C + target
    for g in range(tiny.G):
      learns = causal.groups.mask[q, g]
      count = int(learns.sum())
      assert learns[:count].all(), 'no gap'
      np.testing.assert_array_equal(
        causal.groups.tokens[q, g, count - tiny.L : count], name
      )
      written = int(causal.written[q, g].sum())
      left = (lists.candidate_mask[q].sum() - causal.rank_after[q, g]) * (
        tiny.L + 1
      )
      assert written - count == left + 2, 'then the rest, close and EOS'


def test_one_compilation_a_bucket_and_none_a_temperature(mesh1):
  params = tiny.params(mesh1, sharding.DECODE_RULES)
  prompts = tiny.prompt_set()
  lengths = np.array([len(p) for p in prompts.prompts])
  short = np.flatnonzero(lengths <= 12)[: tiny.Q]
  before = rollout.roll_out._cache_size()
  with sharding.use(mesh1, sharding.DECODE_RULES):
    for rows in (short, np.arange(tiny.Q), short[::-1], np.arange(8, 16)):
      lists = sharding.shard_batch(mesh1, prompts.batch(rows))
      for temperature in (0.5, 1.0):
        rollout.roll_out(
          tiny.MODEL,
          tiny.CONFIG,
          tiny.FMT,
          params,
          lists,
          key=jax.random.key(0),
          temperature=jnp.float32(temperature),
          num_samples=tiny.G,
        )
  # The bucket of 16 may have been compiled by an earlier test.
  assert 1 <= rollout.roll_out._cache_size() - before <= 2


def test_invalid_answers_are_served_in_the_pre_rank_order():
  served = rollout.served_rank(
    jnp.array([1, 4, 2]), jnp.array([True, False, True]), jnp.array([2, 2, 0])
  )
  np.testing.assert_array_equal(served, [1, 3, 2])
