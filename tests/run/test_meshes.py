"""The mesh of a run: sizes of the config, or chosen."""

import ml_collections
import pytest

from configs import common
from gr2_jax.lm import config as lm_config
from gr2_jax.run import meshes

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


_GIB = 2**30


@pytest.mark.parametrize(
  'devices, memory, training, decoding, want',
  [
    # A CPU: data parallel, however large.
    (8, None, 500, 500, (8, 1, 1)),
    # 3 + 1 of 0.6 * 10: fits whole.
    (8, 10, 3, 1, (8, 1, 1)),
    # 20 / 4 + 1 = 6 fits, 20 / 2 + 1 does not.
    (8, 10, 20, 1, (2, 4, 1)),
    # No fsdp holds 8 of decoding; 2 tensors leave 2 for 20 / (2 * 8).
    (16, 10, 20, 8, (1, 8, 2)),
    # Of three devices only the whole is a power of two: data parallel.
    (3, 10, 3, 1, (3, 1, 1)),
  ],
)
def test_sizes_are_the_smallest_that_fit(
  devices, memory, training, decoding, want
):
  memory = memory and memory * _GIB
  given = {'training': training * _GIB, 'decoding': decoding * _GIB}
  found = meshes.choose_sizes(devices, memory, width=64, heads=8, **given)
  assert found == want


def test_sizes_divide_the_model_or_say_what_does_not_fit():
  given = {'training': 20 * _GIB, 'decoding': 8 * _GIB}
  # One head cannot be split; nor can a width of 6 into four, where 2 tensors
  # leave 20 / 4 + 4.
  with pytest.raises(ValueError, match='16 devices with 10.0 GiB .* 20.0 GiB'):
    meshes.choose_sizes(16, 10 * _GIB, width=64, heads=1, **given)
  with pytest.raises(ValueError, match='No mesh of 16 devices'):
    meshes.choose_sizes(16, 10 * _GIB, width=6, heads=2, **given)
