"""The grouped update equals one of separate rows, each answer with its prompt.

The rows go through `Decoder.hidden`, as text in training does: no prefill, no
extend, no shared keys and values.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import constrain
from gr2_jax.lm import decoder, logps
from gr2_jax.rl import dapo, objective
from gr2_jax.rl.groups import Groups
from gr2_jax.train import step
from tests.rl import tiny

# Two layers: the second one's keys depend on what the first made of the prompt.
MODEL = dataclasses.replace(tiny.MODEL, layers=2)
Q, G, P, S = 8, 2, 12, 9
CONFIG = tiny.CONFIG


def _params(mesh):
  made = decoder.init(MODEL, mesh, sharding.TRAIN_RULES, jax.random.key(1))
  return jax.tree.map(lambda x: x * 3 if x.ndim > 1 else x, made)


@pytest.fixture(scope='module')
def batch():
  """Answers of unequal lengths, free and limited places, a free group."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(17, 32, (Q, G, S)).astype(np.int32)
  tokens[..., 4:] = rng.integers(32, 40, (Q, G, S - 4))
  allowed = np.full((Q, G, S, tiny.K), -1, np.int32)
  allowed[..., 4:, 0] = tokens[..., 4:]
  allowed[..., 5, 1] = 32 + (tokens[..., 5] - 31) % 8
  # A place where no citation may begin.
  allowed[..., 3, 0] = -2 - tiny.FMT.sid_begin
  prompt_length = rng.integers(1, P + 1, Q)
  length = rng.integers(2, S + 1, (Q, G))
  prompt_valid = np.arange(P) < prompt_length[:, None]
  return Groups(
    prompt=np.where(prompt_valid, rng.integers(17, 32, (Q, P)), 0),
    prompt_valid=prompt_valid,
    tokens=tokens,
    sampler_logps=np.full((Q, G, S), -3, np.float32),
    # Near the policy's own, so that ratios and clips are at work.
    old_logps=rng.normal(-3, 0.3, (Q, G, S)).astype(np.float32),
    mask=np.arange(S) < length[..., None],
    allowed=allowed,
    advantages=rng.normal(size=(Q, G)).astype(np.float32),
    weight=(np.arange(Q) != 3).astype(np.float32),
    age=np.zeros(Q, np.int32),
  )


def _rows(batch):
  """Writes each answer behind its prompt.

  Returns:
    Tokens [Q * G, P + S], and the places [Q * G, S] of the states that predict
    the answer's tokens.
  """
  rows = np.zeros((Q, G, P + S), np.int32)
  places = np.zeros((Q, G, S), np.int32)
  for q in range(Q):
    prompt = batch.prompt[q][batch.prompt_valid[q]]
    for g in range(G):
      text = [*prompt, *batch.tokens[q, g]]
      rows[q, g, : len(text)] = text
      places[q, g] = len(prompt) - 1 + np.arange(S)
  return rows.reshape(Q * G, -1), places.reshape(Q * G, S)


def _separate(params, batch):
  """Returns loss sum, count and gradients of the loss of separate rows."""
  rows, places = _rows(batch)
  model = decoder.Decoder(MODEL)
  mask = batch.mask & (batch.weight > 0)[:, None, None]

  def loss(params):
    apply = lambda *args, method: model.apply(
      {'params': params}, *args, method=method
    )
    states = apply(rows, method='hidden')
    states = jnp.take_along_axis(states, places[..., None], axis=1)
    logits = apply(states, method='unembed')
    scores, _ = logps.token_logps(
      logits.reshape(Q, G, S, -1),
      batch.tokens,
      CONFIG.temperature,
      batch.allowed,
      constrain.banned(tiny.FMT, MODEL.vocab_size),
    )
    return dapo.dapo_loss(scores, batch.old_logps, batch.advantages, mask)[:2]

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (total, count), grads = run(params)
  return jax.device_get((grads, total, count))


@pytest.fixture(scope='module')
def separate(mesh1, batch):
  return _separate(_params(mesh1), batch)


@pytest.mark.parametrize(
  ('devices', 'microbatches', 'remat'),
  [
    (1, 1, False),
    pytest.param(1, 2, True, marks=pytest.mark.slow),
    pytest.param(8, 1, False, marks=pytest.mark.slow),
    (8, 2, True),
  ],
)
def test_loss_and_gradients(
  devices, microbatches, remat, mesh1, mesh8, batch, separate
):
  mesh = {1: mesh1, 8: mesh8}[devices]
  shape = dataclasses.replace(MODEL, remat=remat)
  loss = objective.make_loss(shape, CONFIG, tiny.FMT)
  params, batch = _params(mesh), sharding.shard_batch(mesh, batch)
  with sharding.use(mesh, sharding.TRAIN_RULES):
    run = jax.jit(lambda *args: step.accumulate(loss, *args, microbatches))
    *got, metrics = jax.device_get(run(params, batch))
  assert metrics['clip_fraction'][0] > 0
  assert got[2] == separate[2] > 50
  # float32 sums in another order, of about a hundred terms of order one.
  np.testing.assert_allclose(got[1], separate[1], rtol=1e-4, atol=1e-4)
  largest = max(np.abs(g).max() for g in jax.tree.leaves(separate[0]))
  assert largest > 1
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-3, atol=1e-5 * largest
    ),
    got[0],
    separate[0],
  )
