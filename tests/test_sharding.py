"""Meshes, rules and batches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding


def test_the_data_axis_takes_what_is_left():
  mesh = sharding.make_mesh(tensor=2)
  assert dict(mesh.shape) == {'data': 4, 'fsdp': 1, 'tensor': 2}
  assert sharding.batch_parts(mesh) == 4


@pytest.mark.parametrize('sizes', [{'data': 3}, {'fsdp': 3}, {'fsdp': 16}])
def test_sizes_that_do_not_cover_the_devices(sizes):
  with pytest.raises(ValueError, match='does not cover 8 devices'):
    sharding.make_mesh(**sizes)


def test_batches_are_split_over_data_and_fsdp(mesh8):
  batch = sharding.shard_batch(mesh8, {'x': np.arange(8.0).reshape(4, 2)})
  assert batch['x'].addressable_shards[0].data.shape == (1, 2)
  np.testing.assert_array_equal(batch['x'], np.arange(8.0).reshape(4, 2))
  whole = sharding.replicate(mesh8, batch)
  assert whole['x'].addressable_shards[0].data.shape == (4, 2)


def test_one_process_holds_all_rows(mesh8):
  np.testing.assert_array_equal(sharding.own_rows(mesh8, 8), np.arange(8))


def test_what_is_fetched_is_whole(mesh8):
  batch = {'x': np.arange(8.0).reshape(4, 2)}
  found = sharding.fetch(mesh8, sharding.shard_batch(mesh8, batch))
  assert type(found['x']) is np.ndarray
  np.testing.assert_array_equal(found['x'], batch['x'])


@pytest.mark.parametrize('rows', [np.zeros((6, 2)), np.float32(1)])
def test_a_batch_that_does_not_divide_names_both(mesh8, rows):
  with pytest.raises(ValueError, match=r"'x'.*divide by the 4 devices"):
    sharding.shard_batch(mesh8, {'x': rows})


def _init(width):
  kernel = nn.with_logical_partitioning(nn.initializers.ones, ('embed', 'mlp'))
  return lambda key: {'kernel': kernel(key, (width, 4)), 'plain': jnp.ones(3)}


def test_rules_decide_where_parameters_lie(mesh8):
  key = jax.random.key(0)
  for rules, shape in (
    (sharding.TRAIN_RULES, (3, 2)),
    (sharding.DECODE_RULES, (6, 2)),
  ):
    params, shardings = sharding.init(_init(6), mesh8, rules, key)
    assert type(params) is dict and type(params['kernel']) is not nn.Partitioned
    assert params['kernel'].addressable_shards[0].data.shape == shape
    assert params['plain'].addressable_shards[0].data.shape == (3,)
    assert params['kernel'].sharding == shardings['kernel']


def test_a_parameter_that_does_not_divide_is_named(mesh8):
  with pytest.raises(ValueError, match=r"'kernel'.*7 does not divide by 2"):
    sharding.init(_init(7), mesh8, sharding.TRAIN_RULES, jax.random.key(0))


def test_activations_take_their_logical_axes(mesh8):
  run = jax.jit(lambda x: sharding.constrain(x * 2, 'batch', 'mlp'))
  with sharding.use(mesh8, sharding.TRAIN_RULES):
    out = run(np.ones((4, 6)))
  assert out.addressable_shards[0].data.shape == (1, 3)
  with pytest.raises(ValueError, match='1 axis names'):
    sharding.constrain(np.ones((2, 2)), 'batch')
