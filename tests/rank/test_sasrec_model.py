import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.rank import sasrec_model as network

CONFIG = network.NetworkConfig(
  num_items=70, width=8, layers=1, heads=2, mlp_dim=12, max_length=6
)


@pytest.fixture(scope='module')
def params(mesh1):
  x = jnp.zeros((1, 2), jnp.int32)
  return sharding.init(
    lambda key: network.SASRec(CONFIG).init(key, x, x, x)['params'],
    mesh1,
    sharding.TRAIN_RULES,
    jax.random.key(0),
  )[0]


@jax.jit
def _apply(params, tokens, positions, segments):
  return network.SASRec(CONFIG).apply(
    {'params': params}, tokens, positions, segments
  )


def test_the_past_does_not_see_the_future(params):
  places = np.arange(6)[None]
  ones = np.ones((1, 6), np.int32)
  left = np.array([[1, 2, 3, 4, 5, 6]])
  right = np.array([[1, 2, 3, 60, 61, 62]])
  a, b = (_apply(params, x, places, ones) for x in (left, right))
  np.testing.assert_array_equal(a[:, :3], b[:, :3])
  assert np.abs(a[:, 3:] - b[:, 3:]).min(axis=-1).max() > 0


def test_packed_histories_do_not_see_each_other(params):
  segments = np.array([[1, 1, 1, 2, 2, 2]])
  places = np.array([[0, 1, 2, 0, 1, 2]])
  a = _apply(params, np.array([[1, 2, 3, 9, 8, 7]]), places, segments)
  b = _apply(params, np.array([[4, 5, 6, 9, 8, 7]]), places, segments)
  np.testing.assert_array_equal(a[:, 3:], b[:, 3:])
  alone = _apply(params, np.array([[9, 8, 7, 0, 0, 0]]), places, segments)
  # Masked scores become exact zeros; only the order of sums differs.
  np.testing.assert_allclose(a[:, 3:], alone[:, :3], atol=1e-5)


def _plain_loss(params, batch):
  """All logits at once, by autodiff."""
  hidden = _apply(
    params, batch['tokens'], batch['positions'], batch['segments']
  )
  logits = hidden[:, :-1] @ params['items'][: CONFIG.num_items].T
  logps = jax.nn.log_softmax(logits)
  own = jnp.take_along_axis(logps, batch['tokens'][:, 1:, None], axis=-1)
  return -(own[..., 0] * batch['weights'][:, 1:]).sum()


def _batch():
  rng = np.random.default_rng(0)
  segments = np.array([[1, 1, 1, 2, 2, 0]] * 4, np.int32)
  weights = np.array([[0, 1, 1, 0, 1, 0]] * 4, np.float32)
  return {
    'tokens': rng.integers(70, size=(4, 6), dtype=np.int32),
    'positions': np.array([[0, 1, 2, 0, 1, 0]] * 4, np.int32),
    'segments': segments,
    'weights': weights,
    'seed': np.zeros(4, np.uint32),
  }


@pytest.mark.parametrize('chunk', [4, 1000])
def test_normaliser_and_gradients_equal_the_plain_ones(monkeypatch, chunk):
  monkeypatch.setattr(network, '_CHUNK', chunk)
  rng = np.random.default_rng(0)
  hidden = rng.normal(size=(24, 8)).astype(np.float32)
  table = rng.normal(size=(128, 8)).astype(np.float32)
  weights = rng.random(24).astype(np.float32)

  def plain(hidden, table):
    logits = hidden @ table[:70].T
    return 3 * (jax.nn.logsumexp(logits, axis=-1) * weights).sum()

  def ours(hidden, table):
    return 3 * network.log_normaliser(70, hidden, table, weights)

  expected = jax.value_and_grad(plain, argnums=(0, 1))(hidden, table)
  found = jax.value_and_grad(ours, argnums=(0, 1))(hidden, table)
  # float32, the same sums in another order.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    found,
    expected,
  )
  assert not found[1][1][70:].any()


def test_loss_equals_the_plain_one(params):
  config = dataclasses.replace(CONFIG, dropout=0.0)
  batch = _batch()
  total, count, _ = jax.jit(network.loss, static_argnums=0)(
    config, params, batch
  )
  assert count == 12
  np.testing.assert_allclose(total, _plain_loss(params, batch), rtol=1e-5)


LOSS = jax.jit(
  jax.value_and_grad(
    lambda params, batch: network.loss(CONFIG, params, batch)[0]
  )
)


def test_dropout_follows_the_seed_on_any_mesh(params, mesh1, mesh8):
  results = []
  for mesh, seed in ((mesh1, 0), (mesh8, 0), (mesh1, 1)):
    with sharding.use(mesh, sharding.TRAIN_RULES):
      seeds = np.full(4, seed, np.uint32)
      batch = sharding.shard_batch(mesh, {**_batch(), 'seed': seeds})
      results.append(LOSS(sharding.replicate(mesh, params), batch))
  (one, grads), (eight, grads8), (other, _) = jax.device_get(results)
  # float32, the same sums in another order.
  np.testing.assert_allclose(one, eight, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, grads8
  )
  assert abs(one - other) > 1e-3


def test_padding_rows_of_the_table_are_never_chosen(params):
  values = network.logits(CONFIG, params, np.ones((2, 8), np.float32))
  assert values.shape == (2, 128)
  assert (values[:, 70:] < -1e8).all() and (values[:, :70] > -1e8).all()
