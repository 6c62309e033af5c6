"""The 8 B config without its weights: shapes, shardings, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import qwen3_8b_beauty
from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.lm import decoder, hf_config, lora, loss
from gr2_jax.stages.training import TrainConfig
from gr2_jax.train import optimiser

# What Qwen/Qwen3-8B's config.json says.
RAW = {
  'architectures': ['Qwen3ForCausalLM'],
  'model_type': 'qwen3',
  'vocab_size': 151_936,
  'hidden_size': 4096,
  'intermediate_size': 12_288,
  'num_hidden_layers': 36,
  'num_attention_heads': 32,
  'num_key_value_heads': 8,
  'head_dim': 128,
  'hidden_act': 'silu',
  'max_position_embeddings': 40_960,
  'rms_norm_eps': 1e-6,
  'rope_theta': 1_000_000,
  'rope_scaling': None,
  'tie_word_embeddings': False,
  'attention_bias': False,
  'use_sliding_window': False,
}
GIB = 2**30


def _shape(config):
  settings = config_lib.to_dict(config.lm)
  settings.pop('pretrained')
  rank = settings.pop('lora_rank')
  shape = hf_config.from_json(RAW, **settings)
  return config_lib.build(
    type(shape), {**config_lib.to_dict(shape), 'lora_rank': rank}
  )


def _bytes(tree):
  """Bytes of a tree on one device."""
  return sum(
    np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )


def _state(shape, mesh, tx):
  """Parameters and moments, abstract and sharded."""
  shapes, shardings = sharding.param_shardings(
    decoder.init_fn(shape), mesh, sharding.TRAIN_RULES, jax.random.key(0)
  )
  params = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )
  by_path = {
    path: x.sharding for path, x in jax.tree_util.tree_leaves_with_path(params)
  }
  whole = NamedSharding(mesh, PartitionSpec())

  def placed(path, x):
    split = next(
      (by_path[path[i:]] for i in range(len(path)) if path[i:] in by_path),
      whole,
    )
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split)

  moments = jax.tree_util.tree_map_with_path(
    placed, jax.eval_shape(tx.init, params)
  )
  return params, moments


def test_parameters_and_moments_are_split_over_eight_devices():
  config = qwen3_8b_beauty.get_config()
  shape = _shape(config)
  assert shape.num_params == 8_190_735_360
  mesh = sharding.make_mesh(**config.mesh)
  assert dict(mesh.shape) == {'data': 1, 'fsdp': 8, 'tensor': 1}
  tx = optimiser.make(optimiser.OptimiserConfig(schedule='constant'))
  params, moments = _state(shape, mesh, tx)
  # The two tables are whole on each device; the rest is an eighth.
  tables = 2 * 151_936 * 4096
  expected = 4 * (tables + (shape.num_params - tables) / 8)
  assert _bytes(params) == pytest.approx(expected, rel=1e-3)
  assert _bytes(moments) == pytest.approx(2 * expected, rel=1e-3)


def test_lora_fits_one_accelerator():
  shape = _shape(qwen3_8b_beauty.get_config('lora=64'))
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  tx = optimiser.make(
    optimiser.OptimiserConfig(schedule='constant'),
    lambda path: path[-1] in (*lora.NAMES, 'embedding', 'output'),
  )
  params, moments = _state(shape, mesh, tx)
  # 6.9 B kernels in bfloat16, two tables in float32, and what is trained.
  assert 17 * GIB < _bytes(params) < 19 * GIB
  assert 10 * GIB < _bytes(moments) < 11 * GIB


@pytest.mark.slow
@pytest.mark.parametrize('lora_rank', [0, 64])
def test_a_step_compiles_and_its_memory_is_known(lora_rank):
  config = qwen3_8b_beauty.get_config(f'lora={lora_rank}')
  shape = _shape(config)
  mesh = sharding.make_mesh(**config.mesh)
  rules = sharding.TRAIN_RULES
  trainable = None
  if lora_rank:
    trainable = lambda path: path[-1] in lora.NAMES
  tx = optimiser.make(optimiser.OptimiserConfig(schedule='constant'), trainable)
  params, moments = _state(shape, mesh, tx)
  phase = config_lib.build(TrainConfig, config.midtrain.all)
  rows = sharding.batch_sharding(mesh)
  like = lambda kind: jax.ShapeDtypeStruct(
    (8, phase.length), kind, sharding=rows
  )
  batch = {
    **dict.fromkeys(('tokens', 'positions', 'segments'), like(jnp.int32)),
    'weights': like(jnp.float32),
  }

  def update(params, moments, batch):
    trained, frozen = tx.split(params)
    grads = jax.grad(
      lambda trained: loss.lm_loss(
        shape, optimiser.join(trained, frozen), batch
      )[0]
    )(trained)
    updates, moments = tx.update(grads, moments, trained)
    trained = jax.tree.map(jnp.add, trained, updates)
    return optimiser.join(trained, frozen), moments

  with sharding.use(mesh, rules):
    compiled = (
      jax.jit(update, donate_argnums=(0, 1))
      .lower(params, moments, batch)
      .compile()
    )
  memory = compiled.memory_analysis()
  print(
    f'LoRA {lora_rank}: arguments {memory.argument_size_in_bytes / GIB:.1f} '
    f'GiB, temporary {memory.temp_size_in_bytes / GIB:.1f} GiB a device'
  )
  held = _bytes((params, moments))
  assert memory.argument_size_in_bytes == pytest.approx(held, rel=0.01)
  assert memory.alias_size_in_bytes > 0.99 * _bytes(params)
