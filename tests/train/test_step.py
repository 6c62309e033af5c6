"""The train step: one division, metric pairs, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.train import metrics, optimiser, state, step

TX = optimiser.make(
  optimiser.OptimiserConfig(schedule='constant', lr=1.0, clip_norm=0)
)


def _loss(params, batch):
  """Weighted squares: parts have unequal counts."""
  square = jnp.square(params['kernel'] - batch['x']) * batch['weight']
  scored = jnp.where(batch['weight'] > 0, square, jnp.inf)
  one = jnp.float32(1)
  pairs = {'low_min': (scored.min(), one), 'high_max': (square.max(), one)}
  return square.sum(), batch['weight'].sum(), pairs


def _gradient(microbatches, batch):
  total, count, pairs = step.accumulate(
    _loss, {'kernel': jnp.float32(1)}, batch, microbatches
  )[1:]
  grads = step.accumulate(
    _loss, {'kernel': jnp.float32(1)}, batch, microbatches
  )[0]
  means = metrics.means({**pairs, 'loss': (total, count)})
  return float(grads['kernel'] / count), means


@pytest.mark.parametrize('microbatches', [1, 2, 4])
def test_parts_of_unequal_weight_divide_once(microbatches):
  batch = {
    'x': jnp.array([0.0, 2.0, 3.0, 5.0]),
    'weight': jnp.array([1.0, 1.0, 1.0, 3.0]),
  }
  got, means = _gradient(microbatches, batch)
  # 2 (1 - x) weight: 2 - 2 - 4 - 24 = -28, over weights 6.
  np.testing.assert_allclose(got, -28 / 6, rtol=1e-6)
  # Squares 1, 1, 4, 48.
  np.testing.assert_allclose(means['loss'], 54 / 6, rtol=1e-6)
  assert means['low_min'] == 1 and means['high_max'] == 48


def test_a_batch_that_does_not_divide_is_named():
  batch = {'x': jnp.ones(3), 'weight': jnp.ones(3)}
  with pytest.raises(ValueError, match='3 rows does not divide into 2'):
    _gradient(2, batch)
  with pytest.raises(ValueError, match='microbatches = 0'):
    step.make_train_step(_loss, TX, 0)


def test_compiles_once_and_an_empty_batch_changes_nothing(mesh1):
  traces = []

  def loss(params, batch):
    traces.append(1)
    return _loss(params, batch)

  update = step.make_train_step(loss, TX)
  current = state.create({'kernel': jnp.float32([1])}, TX, mesh1)
  batch = {'x': jnp.ones(2), 'weight': jnp.zeros(2)}
  for _ in range(3):
    current, pairs = update(current, batch)
  assert len(traces) == 1 and int(current.step) == 3
  assert metrics.means(jax.device_get(pairs))['lr'] == 1
  # Only weight decay (lr 1, 0.01) acts.
  np.testing.assert_allclose(current.params['kernel'], 0.99**3, rtol=1e-5)
