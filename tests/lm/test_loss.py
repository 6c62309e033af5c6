"""The LM loss on packed rows, against a row-by-row reference."""

import functools

import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.lm import decoder, loss
from gr2_jax.lm.config import LMConfig
from gr2_jax.train import metrics, optimiser, state, step

CONFIG = LMConfig(
  vocab_size=32, width=16, layers=1, heads=4, kv_heads=2, head_dim=8, mlp_dim=32
)
LOSS = functools.partial(loss.lm_loss, CONFIG, num_tasks=3)


@functools.cache
def _params():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return decoder.init(CONFIG, mesh, sharding.TRAIN_RULES, jax.random.key(0))


def _batch(rows=8):
  """Segments of 5 and 3 tokens and 2 of padding, with some weights."""
  rng = np.random.default_rng(0)
  shape = (rows, 10)
  layout = lambda x: np.broadcast_to(np.array(x, np.int32)[None], shape).copy()
  weights = rng.uniform(0.2, 1, shape).astype(np.float32)
  weights[:, [0, 2, 5, 8, 9]] = 0
  return {
    'tokens': rng.integers(0, 32, shape).astype(np.int32),
    'segments': layout([1] * 5 + [2] * 3 + [0] * 2),
    'positions': layout([*range(5), *range(3), 0, 0]),
    'weights': weights,
    'task': layout([0] * 5 + [2] * 5),
  }


def test_equals_the_sum_over_unpacked_examples():
  batch = _batch(2)
  total, count, pairs = jax.jit(LOSS)(_params(), batch)
  run = jax.jit(lambda p, t: decoder.Decoder(CONFIG).apply({'params': p}, t))
  want, want_tasks = 0.0, {0: 0.0, 2: 0.0}
  for r in range(2):
    for start, stop, task in ((0, 5, 0), (5, 8, 2)):
      tokens = batch['tokens'][r, start:stop]
      scores = jax.nn.log_softmax(run(_params(), tokens[None])[0])
      for t in range(1, len(tokens)):
        weight = batch['weights'][r, start + t]
        nll = -float(scores[t - 1, tokens[t]])
        want += weight * nll
        want_tasks[task] += nll * (weight > 0)
  # The same float32 sums in another order.
  np.testing.assert_allclose(total, want, rtol=1e-5)
  np.testing.assert_allclose(count, batch['weights'].sum(), rtol=1e-6)
  for task, value in want_tasks.items():
    np.testing.assert_allclose(pairs[f'nll_task{task}'][0], value, rtol=1e-5)
  assert [float(pairs[f'nll_task{i}'][1]) for i in range(3)] == [6, 0, 4]
  assert 'nll_task1' not in metrics.means(pairs)


def test_weights_at_segment_starts_and_on_padding_do_not_count():
  batch = _batch(2)
  changed = dict(batch, weights=batch['weights'].copy())
  changed['weights'][:, [0, 5, 8, 9]] = 7
  a, b = (jax.jit(LOSS)(_params(), x)[:2] for x in (batch, changed))
  np.testing.assert_array_equal(a, b)


def _step(mesh, microbatches):
  """One AdamW step and its metrics."""
  config = optimiser.OptimiserConfig(schedule='constant', lr=1e-2)
  tx = optimiser.make(config)
  _, shardings = sharding.param_shardings(
    decoder.init_fn(CONFIG), mesh, sharding.TRAIN_RULES, jax.random.key(0)
  )
  start = state.create(sharding.reshard(_params(), shardings), tx, mesh)
  update = step.make_train_step(LOSS, tx, microbatches)
  with sharding.use(mesh, sharding.TRAIN_RULES):
    return update(start, sharding.shard_batch(mesh, _batch()))


def test_microbatches_and_the_mesh_change_nothing(mesh1, mesh8):
  base, want = _step(mesh1, 1)
  want = metrics.means(jax.device_get(want))
  for mesh, parts in ((mesh1, 4), (mesh8, 2)):
    after, pairs = _step(mesh, parts)
    got = metrics.means(jax.device_get(pairs))
    assert got.keys() == want.keys()
    for name in want:
      np.testing.assert_allclose(got[name], want[name], rtol=1e-5)
    for a, b in zip(
      jax.tree.leaves(base.opt_state),
      jax.tree.leaves(after.opt_state),
      strict=True,
    ):
      # Adam's first update is lr x sign(g), whatever the size of g: so the
      # moments are compared, not the parameters. Float32 sums reordered.
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7)
  moments = [x for x in jax.tree.leaves(after.opt_state) if x.shape == (32, 16)]
  assert all(x.sharding.spec[0] == 'tensor' for x in moments)


def test_training_learns(mesh1):
  config = optimiser.OptimiserConfig(schedule='constant', lr=1e-2)
  tx = optimiser.make(config)
  update = step.make_train_step(LOSS, tx)
  current = state.create(_params(), tx, mesh1)
  losses = []
  with sharding.use(mesh1, sharding.TRAIN_RULES):
    for _ in range(40):
      current, pairs = update(current, sharding.shard_batch(mesh1, _batch()))
      losses.append(metrics.means(jax.device_get(pairs))['loss'])
  assert losses[0] > 3 and losses[-1] < 0.5
