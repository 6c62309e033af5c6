"""Model files: round trip across meshes, replacement, incomplete models."""

import dataclasses

import jax
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.lm import decoder, io
from gr2_jax.lm.config import LMConfig

CONFIG = LMConfig(
  vocab_size=16,
  width=8,
  layers=1,
  heads=2,
  kv_heads=2,
  head_dim=4,
  mlp_dim=8,
  bf16_matmul=True,
)


def test_round_trip_from_one_mesh_to_another(tmp_path, mesh1, mesh8):
  first = decoder.init(CONFIG, mesh8, sharding.TRAIN_RULES, jax.random.key(0))
  second = jax.tree.map(lambda x: x + 1, first)
  for params in (first, second):
    io.save(tmp_path / 'model', CONFIG, params)
    config, got = io.load(tmp_path / 'model', mesh1, sharding.DECODE_RULES)
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, params, got)
  assert got['embedding'].sharding.mesh == mesh1


def test_what_decodes_reads_narrow_kernels(tmp_path, mesh1):
  params = decoder.init(CONFIG, mesh1, sharding.TRAIN_RULES, jax.random.key(0))
  io.save(tmp_path, CONFIG, params)
  config, got = io.load_for_decoding(tmp_path, mesh1)
  assert config == dataclasses.replace(CONFIG, param_dtype='bfloat16')
  for path, x in jax.tree_util.tree_leaves_with_path(got):
    kind = 'bfloat16' if path[-1].key == 'kernel' else 'float32'
    assert x.dtype == kind, jax.tree_util.keystr(path)
  np.testing.assert_array_equal(got['embedding'], params['embedding'])


def test_an_incomplete_model_is_named(tmp_path, mesh1):
  io.save(tmp_path, CONFIG, {'embedding': np.zeros(3)})
  (tmp_path / 'lm_config.json').unlink()
  with pytest.raises(FileNotFoundError, match='No complete model in'):
    io.load(tmp_path, mesh1, sharding.DECODE_RULES)
