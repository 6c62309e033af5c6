"""Schedules, weight decay, and phases that train some rows only."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gr2_jax.train import optimiser, state, step
from gr2_jax.train.optimiser import OptimiserConfig, learning_rate


def test_schedules_by_hand():
  rate = lambda config: [float(learning_rate(config, s)) for s in range(7)]
  config = OptimiserConfig(
    lr=4.0, schedule='linear', warmup_steps=2, total_steps=6
  )
  np.testing.assert_allclose(rate(config), [2, 4, 4, 3, 2, 1, 0])
  config = OptimiserConfig(
    lr=4.0, schedule='cosine', warmup_steps=2, total_steps=6
  )
  half = 2 * 2**0.5 / 2
  want = [2, 4, 4, 2 + half, 2, 2 - half, 0]
  np.testing.assert_allclose(rate(config), want, atol=1e-6)
  config = OptimiserConfig(lr=4.0, schedule='constant')
  np.testing.assert_allclose(rate(config), 4)


@pytest.mark.parametrize(
  'values, message',
  [
    ({'schedule': 'step'}, "schedule = 'step'"),
    ({'total_steps': 5, 'warmup_steps': 5}, 'must exceed'),
    ({'lr': -1.0, 'schedule': 'constant'}, 'lr = -1.0 is negative'),
  ],
)
def test_bad_values_are_named(values, message):
  with pytest.raises(ValueError, match=message):
    OptimiserConfig(**values)


def _params():
  rng = np.random.default_rng(0)
  return {
    'embedding': np.where(
      np.arange(6)[:, None] == 1, -0.0, rng.normal(size=(6, 3))
    ).astype(np.float32),
    'layer': {
      'kernel': rng.normal(size=(3, 3)).astype(np.float32),
      'scale': np.ones(3, np.float32),
    },
  }


def _loss(params, batch):
  x = params['embedding'][batch] @ params['layer']['kernel']
  x = x * params['layer']['scale'][None]
  return jnp.square(x).sum(), jnp.float32(x.size), {}


def _run(mesh, trainable, steps=3, **values):
  config = OptimiserConfig(schedule='constant', lr=0.1, **values)
  tx = optimiser.make(config, trainable)
  current = state.create(
    jax.device_put(_params(), mesh.devices[0, 0, 0]), tx, mesh
  )
  update = step.make_train_step(_loss, tx)
  for _ in range(steps):
    current, pairs = update(current, jnp.arange(6))
  return jax.device_get(current.params), pairs


def test_new_rows_train_and_everything_else_keeps_its_bits(mesh1):
  before = _params()
  after, _ = _run(mesh1, optimiser.new_rows(4), weight_decay=0.5)
  bits = lambda x: np.asarray(x).view(np.int32)
  np.testing.assert_array_equal(
    bits(after['embedding'][:4]), bits(before['embedding'][:4])
  )
  for name in ('kernel', 'scale'):
    np.testing.assert_array_equal(
      bits(after['layer'][name]), bits(before['layer'][name])
    )
  assert (after['embedding'][4:] != before['embedding'][4:]).all()
  grads = jax.grad(lambda p: _loss(p, jnp.arange(6))[0] / 18)(before)
  _, pairs = _run(mesh1, optimiser.new_rows(4), steps=1)
  want = np.linalg.norm(grads['embedding'][4:])
  np.testing.assert_allclose(pairs['grad_norm'][0], want, rtol=1e-5)


def test_frozen_parameters_cost_no_states(mesh1):
  before = _params()
  tx = optimiser.make(
    OptimiserConfig(schedule='constant', lr=0.1),
    lambda path: path[-1] == 'scale',
  )
  before['layer']['kernel'] = jnp.asarray(before['layer']['kernel'], 'bfloat16')
  current = state.create(jax.device_put(before), tx, mesh1)
  # Two moments of the scale; the rest are counters.
  sizes = [x.size for x in jax.tree.leaves(current.opt_state)]
  assert sorted(sizes)[-2:] == [3, 3] and sorted(sizes)[:-2] == [1] * (
    len(sizes) - 2
  )
  after, pairs = step.make_train_step(_loss, tx)(current, jnp.arange(6))
  after = jax.device_get(after.params)
  assert (after['layer']['scale'] != 1).all()
  assert after['layer']['kernel'].dtype == jnp.bfloat16
  for name, x in (
    ('embedding', after['embedding']),
    ('kernel', after['layer']['kernel']),
  ):
    want = before[name] if name in before else before['layer'][name]
    np.testing.assert_array_equal(x, want)
  with pytest.raises(ValueError, match='kernel.*bfloat16'):
    state.create(
      before, optimiser.make(OptimiserConfig(schedule='constant')), mesh1
    )


def test_weight_decay_leaves_norms_and_biases(mesh1):
  kept, _ = _run(mesh1, None, steps=1, weight_decay=0.0)
  decayed, _ = _run(mesh1, None, steps=1, weight_decay=0.5)
  np.testing.assert_array_equal(
    kept['layer']['scale'], decayed['layer']['scale']
  )
  # lr x decay x value less.
  np.testing.assert_allclose(
    kept['layer']['kernel'] - decayed['layer']['kernel'],
    0.05 * _params()['layer']['kernel'],
    rtol=1e-3,
    atol=1e-6,
  )


def test_equals_plain_optax(mesh1):
  after, _ = _run(mesh1, None, weight_decay=0.0, clip_norm=0.5)
  tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1, b2=0.95))
  params = _params()
  opt_state = tx.init(params)
  for _ in range(3):
    grads = jax.grad(lambda p: _loss(p, jnp.arange(6))[0] / 18)(params)
    updates, opt_state = tx.update(grads, opt_state)
    params = optax.apply_updates(params, updates)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    after,
    jax.device_get(params),
  )


def _ranker(loss, decay, head='head'):
  """One update of a matrix and a head; returns how far each went."""
  params = {
    'lm': {'kernel': np.ones((2, 2), np.float32)},
    head: {'direct': {'tau': np.float32(1), 'weights': np.ones(2, np.float32)}},
  }
  tx = optimiser.make(
    OptimiserConfig(
      schedule='constant', lr=0.01, weight_decay=decay, clip_norm=1.0
    )
  )
  opt_state = tx.init(params)
  grads = jax.tree.map(lambda x: np.full_like(x, loss), params)
  updates, opt_state = tx.update(grads, opt_state, params)
  assert float(tx.rate(opt_state)) == pytest.approx(0.01)
  return updates['lm']['kernel'], updates[head]['direct']


def test_the_head_learns_three_times_faster():
  """Adam's first step is the rate, whatever the size of the gradient."""
  for slope in (0.5, -3.0):
    kernel, head = _ranker(slope, decay=0.0)
    sign = -np.sign(slope)
    np.testing.assert_allclose(kernel, sign * 0.01, rtol=1e-4)
    np.testing.assert_allclose(head['tau'], sign * 0.03, rtol=1e-4)
    np.testing.assert_allclose(head['weights'], sign * 0.03, rtol=1e-4)


def test_nothing_pulls_the_head_to_zero():
  kernel, head = _ranker(0.0, decay=0.5)
  # lr x decay x value.
  np.testing.assert_allclose(kernel, -0.005, rtol=1e-5)
  assert head['tau'] == 0 and not head['weights'].any()


def test_no_other_name_is_a_head():
  kernel, other = _ranker(0.5, decay=0.0, head='heads')
  np.testing.assert_allclose(other['weights'], -0.01, rtol=1e-4)
  kernel, other = _ranker(0.0, decay=0.5, head='heads')
  np.testing.assert_allclose(other['tau'], -0.005, rtol=1e-5)
