"""The grouped forward pass and its loss, against one answer at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import constrain
from gr2_jax.lm.decoder import Decoder
from gr2_jax.rl import objective, rollout
from gr2_jax.train import step
from tests.rl import tiny

LOSS = objective.make_loss(tiny.MODEL, tiny.CONFIG, tiny.FMT)


@jax.jit
def _score(params, groups):
  return objective.score(tiny.MODEL, tiny.CONFIG, tiny.FMT, params, groups)


def _groups(mesh, params):
  lists = tiny.lists(mesh)
  with sharding.use(mesh, sharding.DECODE_RULES):
    return rollout.roll_out(
      tiny.MODEL,
      tiny.CONFIG,
      tiny.FMT,
      params,
      lists,
      key=jax.random.key(0),
      temperature=tiny.TEMPERATURE,
      num_samples=tiny.G,
    ).groups


@pytest.fixture(scope='module')
def sampled(mesh1):
  params = tiny.params(mesh1)
  return params, _groups(mesh1, params)


def test_sampler_and_trainer_score_alike(mesh1, sampled):
  params, groups = sampled
  with sharding.use(mesh1, sharding.TRAIN_RULES):
    logps, _ = _score(params, groups)
  gap = np.abs(np.asarray(logps - groups.old_logps))[np.asarray(groups.mask)]
  # float32 sums in another order; a temperature or a constraint applied on
  # one side only would be a gap of 0.1 or more.
  assert gap.max() < 1e-4
  assert np.asarray(groups.old_logps).min() < -0.5


def test_equals_the_plain_model_on_the_whole_text(mesh1, sampled):
  params, groups = sampled
  with sharding.use(mesh1, sharding.TRAIN_RULES):
    logps, entropies = jax.device_get(_score(params, groups))
  groups = jax.device_get(groups)
  banned = constrain.banned(tiny.FMT, tiny.MODEL.vocab_size)
  forward = jax.jit(Decoder(tiny.MODEL).apply)
  for q, g in ((0, 1), (3, 2)):
    prompt = groups.prompt[q][groups.prompt_valid[q]]
    answer = groups.tokens[q, g][groups.mask[q, g]]
    text = np.zeros(48, np.int32)  # One shape; what follows changes nothing.
    text[: len(prompt) + len(answer)] = [*prompt, *answer]
    logits = np.array(forward({'params': params}, text[None]))[0]
    for i, token in enumerate(answer):
      row = logits[len(prompt) + i - 1] / tiny.CONFIG.temperature
      allowed = groups.allowed[q, g, i]
      ids = allowed[allowed >= 0]
      if not len(ids):
        ids = np.flatnonzero(~banned)
        ids = ids[ids != -2 - allowed[0]]
      log_probs = row[ids] - np.log(np.exp(row[ids]).sum())
      np.testing.assert_allclose(
        logps[q, g, i], log_probs[ids == token][0], atol=1e-4
      )
      entropy = -(np.exp(log_probs) * log_probs).sum()
      np.testing.assert_allclose(entropies[q, g, i], entropy, atol=1e-4)


@jax.jit
def _gradients(params, groups):
  return step.accumulate(LOSS, params, groups, 1)


def test_parts_of_a_batch_add_up(mesh1, sampled):
  """Sums over any parts, and so micro-batches and devices, are the whole."""
  params, groups = sampled
  # Old log-probs of another policy, so that ratios and clips are at work.
  noise = jax.random.normal(jax.random.key(1), groups.old_logps.shape)
  groups = groups.replace(old_logps=groups.old_logps + 0.3 * noise)
  results = []
  with sharding.use(mesh1, sharding.TRAIN_RULES):
    for weight in ([1] * 8, [1, 0, 0, 1, 0, 1, 0, 0], [0, 1, 1, 0, 1, 0, 1, 1]):
      part = groups.replace(weight=jnp.array(weight, jnp.float32))
      results.append(jax.device_get(_gradients(params, part)))
  whole, left, right = results
  assert whole[2] == left[2] + right[2] == np.asarray(groups.mask).sum()
  assert left[2] != right[2]
  # float32 sums in another order.
  np.testing.assert_allclose(whole[1], left[1] + right[1], rtol=1e-4, atol=1e-4)
  jax.tree.map(
    lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=1e-3, atol=1e-3),
    whole[0],
    left[0],
    right[0],
  )
  clipped = [result[3]['clip_fraction'][0] for result in results]
  assert clipped[0] == clipped[1] + clipped[2] > 0
  low = [result[3]['ratio_min'][0] for result in results]
  high = [result[3]['ratio_max'][0] for result in results]
  assert low[0] == min(low[1:]) and high[0] == max(high[1:])


def test_groups_of_weight_zero_count_for_nothing(mesh1, sampled):
  params, groups = sampled
  with sharding.use(mesh1, sharding.TRAIN_RULES):
    free = groups.replace(weight=jnp.zeros(8, jnp.float32))
    grads, total, count, _ = jax.device_get(_gradients(params, free))
  assert total == 0 and count == 0
  assert all((g == 0).all() for g in jax.tree.leaves(grads))
