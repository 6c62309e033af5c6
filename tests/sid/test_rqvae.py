"""The RQ-VAE loss by hand, its gradients, and the scaling of its input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.sid import rqvae
from gr2_jax.sid.config import SidConfig

CONFIG = SidConfig(
  levels=2,
  codes=2,
  hidden=(),
  latent=2,
  batch_size=8,
  commitment=0.5,
  bf16_matmul=False,
  split_below=0.0,
)
# An encoder and a decoder that are the identity.
PARAMS = {
  half: {'dense_0': {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)}}
  for half in ('encoder', 'decoder')
}
PARAMS['books'] = jnp.array(
  [[[0.0, 0.0], [4.0, 0.0]], [[0.0, 1.0], [-2.0, 0.0]]]
)
H = jnp.array([[3.0, 0.0]])


def loss(params, quantised):
  model = rqvae.Autoencoder(CONFIG, 2)
  return rqvae.loss(params, model, H, jnp.array(quantised))


def test_loss_by_hand():
  value, aux = loss(PARAMS, True)
  # r_1 = (3, 0) takes (4, 0); r_2 = (-1, 0) takes (-2, 0): 1 is left over.
  np.testing.assert_array_equal(aux['codes'], [[1, 1]])
  assert float(aux['mse']) == pytest.approx((1 + 0) / 2)
  assert float(aux['commitment']) == pytest.approx(1 + 1)
  assert float(value) == pytest.approx(0.5 + 0.5 * 2 / 2)


def test_gradients_pass_straight_through_and_commit():
  grads = jax.grad(lambda params: loss(params, True)[0])(PARAMS)
  # d mse / d h' = (h' - h) = (-1, 0), straight to z; commitment: 0.5 / 2 * 2
  # times the two residuals (-1, 0) and (1, 0), which cancel.
  np.testing.assert_allclose(
    grads['encoder']['dense_0']['bias'], [-1.0, 0.0], atol=1e-6
  )
  # The decoder sees the quantised (2, 0).
  np.testing.assert_allclose(
    grads['decoder']['dense_0']['kernel'], [[-2.0, 0.0], [0.0, 0.0]], atol=1e-6
  )


def test_without_quantisation_it_is_an_autoencoder():
  value, aux = loss(PARAMS, False)
  assert float(value) == 0.0
  assert float(aux['mse']) == 0.0


@pytest.mark.parametrize('items', [1, 6, 16])
@pytest.mark.parametrize('bf16', [False, True])
def test_encoder_and_its_gradients_are_those_of_plain_products(items, bf16):
  config = SidConfig(hidden=(7,), latent=3, bf16_matmul=bf16)
  model = rqvae.Autoencoder(config, 5)
  params = rqvae.create(jax.random.key(0), model, config)
  x = jax.random.normal(jax.random.key(1), (items, 5))

  def plain(layers, x):
    for i in range(2):
      x = jax.nn.relu(x) if i else x
      layer = layers[f'dense_{i}']
      x = x @ layer['kernel'] + layer['bias'][None]
    return x

  def total(encode, params):
    z = encode(params)
    return (z * jnp.cos(jnp.arange(z.size).reshape(z.shape))).sum(), z

  own, want = (
    jax.value_and_grad(lambda p, f=f: total(f, p), has_aux=True)(params)
    for f in (
      lambda p: rqvae.apply(model, p, x, 'encode'),
      lambda p: plain(p['encoder'], x),
    )
  )
  # float32 sums in another order; bfloat16 keeps eight bits of an operand.
  tolerance = {'rtol': 0.05, 'atol': 0.1} if bf16 else {'atol': 1e-5}
  np.testing.assert_allclose(own[0][1], want[0][1], **tolerance)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
    own[1]['encoder'],
    want[1]['encoder'],
  )


@pytest.mark.parametrize(
  ('field', 'value'),
  [('levels', 0), ('decay', 1.5), ('warmup_epochs', 120), ('check_every', 0)],
)
def test_config_names_a_bad_value(field, value):
  with pytest.raises(ValueError, match=f'sid.{field} = {value}'):
    SidConfig(**{field: value})
