"""The 8 B config without its weights: shapes, shardings, memory."""

import jax
import pytest

from configs import qwen3_8b_beauty
from gr2_jax import sharding
from gr2_jax.aot import plan as plan_lib
from gr2_jax.aot import programs
from gr2_jax.lm import lora, published
from gr2_jax.run import models
from gr2_jax.train import optimiser, state

GIB = 2**30
V, D = 152_768, 4096


def _plan(arg, devices=8):
  config = qwen3_8b_beauty.get_config(arg)
  config.midtrain.all.batch_size = 8
  config.midtrain.all.microbatches = 1
  mesh = sharding.make_mesh(**config.mesh, devices=jax.devices()[:devices])
  return plan_lib.make(config, mesh)


def test_published_sizes():
  sizes = {
    # Qwen3's technical report, table 1, without and with new tokens' rows.
    'Qwen3-0.6B': 596_049_920,
    'Qwen3-1.7B': 1_720_574_976,
    'Qwen3-8B': 8_190_735_360,
    'Qwen3-32B': 32_762_123_264,
  }
  assert sizes.keys() == published.CONFIGS.keys()
  for size in ('0.6b', '1.7b', '8b', '32b'):
    config = qwen3_8b_beauty.get_config(f'size={size}')
    shape, vocab = models.shape(config)
    tables = 1 if shape.tie_embeddings else 2
    new = tables * shape.width * (V - 151_936)
    assert shape.num_params == sizes[config.lm.pretrained] + new
    assert vocab.size == shape.vocab_size == V
  with pytest.raises(ValueError, match="size='7b': choose one of"):
    qwen3_8b_beauty.get_config('size=7b')


def test_parameters_and_moments_are_split_over_eight_devices():
  plan = _plan('')
  assert dict(plan.mesh.shape) == {'data': 1, 'fsdp': 4, 'tensor': 2}
  held = programs.make('train', plan).held
  expected = 4 * plan.model.num_params / 8
  # Nothing but the norms is whole on each device.
  assert plan_lib.chip_bytes(held['parameters']) == pytest.approx(
    expected, rel=1e-3
  )
  assert plan_lib.chip_bytes(held['optimiser']) == pytest.approx(
    2 * expected, rel=1e-3
  )


def test_lora_fits_one_accelerator():
  plan = _plan('lora=64', devices=1)
  tx = optimiser.make(
    optimiser.OptimiserConfig(schedule='constant'),
    lambda path: path[-1] in (*lora.NAMES, 'embedding', 'output'),
  )
  params = plan.params(plan.model, sharding.TRAIN_RULES)
  start = state.abstract(params, tx, plan.mesh)
  # 6.9 B kernels in bfloat16, two tables in float32, and what is trained.
  assert 17 * GIB < plan_lib.chip_bytes(start.params) < 19 * GIB
  assert 10 * GIB < plan_lib.chip_bytes(start.opt_state) < 11 * GIB


@pytest.mark.slow
@pytest.mark.parametrize('lora_rank', [0, 64])
def test_a_step_compiles_and_its_memory_is_known(lora_rank):
  plan = _plan(f'lora={lora_rank},attention=plain')
  program = programs.make('train', plan)
  memory = program.lower().compile().memory_analysis()
  print(
    f'LoRA {lora_rank}: arguments {memory.argument_size_in_bytes / GIB:.1f} '
    f'GiB, temporary {memory.temp_size_in_bytes / GIB:.1f} GiB a device'
  )
  held = plan_lib.chip_bytes(program.held)
  assert memory.argument_size_in_bytes == pytest.approx(held, rel=0.01)
  trained = plan_lib.chip_bytes(program.held['parameters'])
  assert memory.alias_size_in_bytes > 0.99 * trained
