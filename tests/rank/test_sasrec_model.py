import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.rank import sasrec_model as network

CONFIG = network.NetworkConfig(
  num_items=70, width=8, layers=2, heads=2, mlp_dim=12, max_length=6
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
def test_loss_and_gradients_equal_the_plain_ones(params, monkeypatch, chunk):
  monkeypatch.setattr(network, '_CHUNK', chunk)
  config = network.NetworkConfig(**{**CONFIG.__dict__, 'dropout': 0.0})
  batch = _batch()
  plain, expected = jax.jit(jax.value_and_grad(_plain_loss))(params, batch)
  (total, count), grads = jax.jit(
    jax.value_and_grad(
      lambda p, b: network.loss(config, p, b)[:2], has_aux=True
    )
  )(params, batch)
  assert count == 12
  # float32, the same sums in another order.
  np.testing.assert_allclose(total, plain, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, expected
  )


LOSS = jax.jit(
  jax.value_and_grad(
    lambda params, batch: network.loss(CONFIG, params, batch)[0]
  )
)


def test_dropout_follows_the_seed(params):
  batch = _batch()
  losses = [
    float(LOSS(params, {**batch, 'seed': batch['seed'] + np.uint32(s)})[0])
    for s in (0, 0, 1)
  ]
  assert losses[0] == losses[1] != losses[2]


def test_eight_devices_give_the_same_loss(params, mesh1, mesh8):
  results = []
  for mesh in (mesh1, mesh8):
    with sharding.use(mesh, sharding.TRAIN_RULES):
      batch = sharding.shard_batch(mesh, _batch())
      here = sharding.replicate(mesh, params)
      results.append(
        jax.jit(jax.value_and_grad(lambda p, b: network.loss(CONFIG, p, b)[0]))(
          here, batch
        )
      )
  (one, grads), (eight, grads8) = jax.device_get(results)
  np.testing.assert_allclose(one, eight, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, grads8
  )


def test_padding_rows_of_the_table_are_never_chosen(params):
  values = network.logits(CONFIG, params, np.ones((2, 8), np.float32))
  assert values.shape == (2, 128)
  assert (values[:, 70:] < -1e8).all() and (values[:, :70] > -1e8).all()
