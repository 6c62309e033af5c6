"""The sampler with top-k, top-p and min-p."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import constrain as constraints
from gr2_jax.decode import filters, sampler
from gr2_jax.decode.items import Items
from gr2_jax.lm import decoder
from gr2_jax.rl import parse

MIXED = {'top_k': 12, 'top_p': 0.8, 'min_p': 0.02}

read = jax.jit(parse.parse_ranking, static_argnums=2)


@pytest.mark.parametrize('constrain', [True, False])
@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_none_and_neutral_are_one_bit_for_bit(sample, constrain, temperature):
  none = sample(3, temperature, constrain)
  neutral = sample(3, temperature, constrain, filters=filters.make())
  jax.tree.map(np.testing.assert_array_equal, none, neutral)
  np.testing.assert_array_equal(none.logps, none.behaviour_logps)


def test_none_traces_nothing_for_filters(sample, monkeypatch):
  monkeypatch.setattr(filters, 'active', None)
  monkeypatch.setattr(filters, 'threshold', None)
  jax.eval_shape(lambda: sample(slots=30))


def test_greedy_ignores_filters(sample):
  greedy = sample(2, 0.0)
  filtered = sample(2, 0.0, filters=filters.make(**MIXED))
  jax.tree.map(np.testing.assert_array_equal, greedy, filtered)


@pytest.mark.parametrize('constrain', [True, False])
def test_one_token_left_is_greedy(sample, constrain):
  greedy = sample(2, 0.0, constrain)
  for values in ({'top_k': 1}, {'top_p': 1e-6}, {'min_p': 0.999999}):
    samples = sample(5, 1.0, constrain, filters=filters.make(**values))
    np.testing.assert_array_equal(samples.tokens, greedy.tokens)
    assert not np.asarray(samples.behaviour_logps).any()
    # At temperature 1 both score the same distribution.
    np.testing.assert_allclose(samples.logps, greedy.logps, atol=1e-5)


@pytest.mark.parametrize('constrain', [True, False])
def test_both_log_probabilities_equal_the_reference(
  sample, tiny, fmt, prompts, kept_by_sorting, constrain
):
  """Recomputes each position by a full forward and a sort."""
  temperature = 1.3
  samples = sample(4, temperature, constrain, filters=filters.make(**MIXED))
  samples = jax.tree.map(np.asarray, samples)
  lengths = np.asarray(prompts[1]).sum(-1)

  def free(ids):
    if not constrain:
      return np.arange(64)
    out = constraints.banned(fmt, 64) | (np.arange(64) == -2 - ids[0])
    return np.flatnonzero(~out)

  checked, narrowed = 0, 0
  for q, g in np.ndindex(samples.tokens.shape[:2]):
    live = samples.mask[q, g]
    full = np.zeros((1, 40), np.int32)
    start = lengths[q]
    full[0, :start] = np.asarray(prompts[0])[q, :start]
    full[0, start : start + live.sum()] = samples.tokens[q, g, live]
    logits = np.asarray(tiny.forward(full)[0], np.float64) / temperature
    for place in np.flatnonzero(live):
      row = logits[start + place - 1]
      ids = samples.allowed[q, g, place]
      ids = ids[ids >= 0] if (ids >= 0).any() else free(ids)
      row = np.where(np.isin(np.arange(len(row)), ids), row, -np.inf)
      kept = kept_by_sorting(row, **MIXED)
      token = samples.tokens[q, g, place]
      assert kept[token]
      for logps, inside in (
        (samples.logps, np.isfinite(row)),
        (samples.behaviour_logps, kept),
      ):
        # Less the largest: a forced id may be a banned one, far below.
        row = row - row.max()
        want = row[token] - np.log(np.exp(row[inside]).sum())
        assert abs(logps[q, g, place] - want) < 2e-4
      checked += 1
      narrowed += kept.sum() < len(ids)
  assert checked > 100 and narrowed > 20


@pytest.mark.parametrize(
  'values', [{'top_k': 2}, {'top_p': 0.5}, {'min_p': 0.3}, MIXED]
)
def test_constrained_answers_stay_permutations(
  sample, remake, fmt, lists, values
):
  for seed in range(3):
    samples = sample(
      seed, 4.0, params=remake(seed), filters=filters.make(**values)
    )
    positions, valid = read(
      samples.tokens, lists[0][:, None], fmt, samples.mask, lists[1][:, None]
    )
    assert bool(valid.all())
    assert (np.sort(np.asarray(positions)[0], -1) == np.arange(3)[None]).all()


def test_one_compilation_for_all_values_and_prompts_of_a_bucket(sample):
  sample(filters=filters.make())
  before = sampler.sample._cache_size()
  rng = np.random.default_rng(0)
  for values in ({'top_k': 3}, {'top_p': 0.4}, {'min_p': 0.2}, MIXED):
    tokens = jnp.asarray(rng.integers(3, 60, (4, 8)), jnp.int32)
    valid = jnp.asarray(np.arange(8) < rng.integers(1, 8, (4, 1)))
    sample(filters=filters.make(**values), batch=(tokens, valid))
  assert sampler.sample._cache_size() == before


def test_eight_devices_sample_what_one_does(
  tiny, fmt, prompts, lists, citable, sample, mesh8
):
  one = sample(4, filters=filters.make(**MIXED))
  _, shardings = sharding.param_shardings(
    decoder.init_fn(tiny.config),
    mesh8,
    sharding.DECODE_RULES,
    jax.random.key(0),
  )
  params = sharding.reshard(tiny.params, shardings)
  inputs = sharding.shard_batch(mesh8, (*prompts, *lists, *citable))
  with sharding.use(mesh8, sharding.DECODE_RULES):
    eight = sampler.sample(
      tiny.config,
      params,
      *inputs[:2],
      jax.random.key(4),
      num_samples=4,
      max_new_tokens=one.tokens.shape[-1],
      temperature=jnp.float32(1.0),
      fmt=fmt,
      items=Items(*inputs[2:]),
      constrain=True,
      explanation_tokens=8,
      filters=filters.make(**MIXED),
    )
  np.testing.assert_array_equal(one.tokens, eight.tokens)
  # float32 sums in another order, logits of the size of 10.
  np.testing.assert_allclose(one.logps, eight.logps, atol=2e-4)
  np.testing.assert_allclose(
    one.behaviour_logps, eight.behaviour_logps, atol=2e-4
  )
