"""The mesh of a run: sizes of the config, or chosen."""

import ml_collections
import pytest

from configs import common
from gr2_jax.lm import config as lm_config
from gr2_jax.stages import meshes

SHAPE = {
  'vocab_size': 64,
  'width': 8,
  'layers': 1,
  'heads': 2,
  'kv_heads': 2,
  'head_dim': 4,
  'mlp_dim': 16,
}
# 64 * 8 of the table; 4 * 8 * 8 + 3 * 8 * 16 of kernels; norms.
TABLE, KERNELS, NORMS = 512, 640, 8 + 8 + 8 + 4 + 4


def test_bytes_of_training_and_of_decoding():
  shape = lm_config.LMConfig(**SHAPE)
  assert shape.num_params == TABLE + KERNELS + NORMS
  # Parameter, gradient and two moments of 4 bytes each.
  assert meshes.count_bytes(shape) == (
    16 * shape.num_params,
    4 * shape.num_params,
  )
  narrow = lm_config.LMConfig(**SHAPE, bf16_matmul=True)
  assert meshes.count_bytes(narrow)[1] == 2 * KERNELS + 4 * (TABLE + NORMS)


def test_lora_trains_its_matrices_and_the_table():
  shape = lm_config.LMConfig(**SHAPE, lora_rank=2, param_dtype='bfloat16')
  lora = shape.num_params - TABLE - KERNELS - NORMS
  training, _ = meshes.count_bytes(shape)
  assert training == 16 * (TABLE + lora) + 2 * KERNELS + 4 * NORMS


# 1.9 million parameters: 30 MB in training, 5 in decoding; 15 of 25 are used.
@pytest.mark.parametrize(
  'memory, want',
  [(None, (8, 1, 1)), (10**9, (8, 1, 1)), (25 * 10**6, (2, 4, 1))],
)
def test_sizes_that_are_chosen(monkeypatch, memory, want):
  config = common.base()
  config.mesh.update({'fsdp': 0, 'tensor': 0})
  monkeypatch.setattr(meshes, '_memory', lambda: memory)
  assert tuple(meshes.make(config).shape.values()) == want


def test_sizes_that_are_given():
  config = ml_collections.ConfigDict({'mesh': {'data': -1, 'tensor': 2}})
  assert tuple(meshes.make(config).shape.values()) == (4, 1, 2)
