"""The RQ-VAE loss by hand, its gradients, and the scaling of its input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.sid import rqvae
from gr2_jax.sid.config import SidConfig

CONFIG = SidConfig(
  levels=2, codes=2, hidden=(), latent=2, batch_size=8, commitment=0.5
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


@pytest.mark.parametrize(
  ('field', 'value'),
  [('levels', 0), ('decay', 1.5), ('warmup_epochs', 120), ('check_every', 0)],
)
def test_config_names_a_bad_value(field, value):
  with pytest.raises(ValueError, match=f'sid.{field} = {value}'):
    SidConfig(**{field: value})
