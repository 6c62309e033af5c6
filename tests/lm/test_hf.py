"""Hugging Face directories: layout, sharded reading, refusals, growth."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from gr2_jax import sharding
from gr2_jax.lm import decoder, grow, hf, hf_config, layout
from gr2_jax.lm.config import LMConfig

QWEN3 = LMConfig(
  vocab_size=64, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=32
)
LLAMA3 = dataclasses.replace(
  QWEN3,
  qk_norm=False,
  tie_embeddings=False,
  rope_scaling=(8.0, 1.0, 4.0, 8192.0),
  rope_theta=5e5,
  norm_eps=1e-5,
  max_positions=131_072,
)
QWEN2 = dataclasses.replace(QWEN3, qk_norm=False, qkv_bias=True, head_dim=4)
BIASED = dataclasses.replace(
  LLAMA3, qkv_bias=True, out_bias=True, mlp_bias=True
)


def _init(config, mesh):
  made = decoder.init(config, mesh, sharding.TRAIN_RULES, jax.random.key(0))
  # Biases start at 0 and norms at 1: here they all differ.
  return jax.tree.map(
    lambda x: x + np.arange(x.size, dtype=x.dtype).reshape(x.shape) / 64, made
  )


def _equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('config', [QWEN3, LLAMA3, QWEN2, BIASED])
@pytest.mark.parametrize('scan', [False, True])
def test_round_trip_on_many_devices(config, scan, tmp_path, mesh1, mesh8):
  config = dataclasses.replace(
    config, scan=scan, max_positions=config.max_positions or 32_768
  )
  params = _init(config, mesh8)
  hf.save(tmp_path, config, params, special={'eos_token_id': 2})
  for mesh in (mesh1, mesh8):
    found, read = hf.load(tmp_path, mesh, scan=scan)
    assert found == config
    _equal(read, params)
  sharded = jax.tree.map(lambda x: x.sharding, params)
  assert jax.tree.map(lambda x: x.sharding, read) == sharded
  # The other way to hold the layers holds the same.
  other = hf.load(tmp_path, mesh1, scan=not scan)
  for name, _ in layout.names(config):
    np.testing.assert_array_equal(
      layout.get(*other, name), layout.get(config, params, name)
    )
  raw = json.loads((tmp_path / 'generation_config.json').read_text())
  assert raw == {'eos_token_id': 2}


def test_tensors_are_those_of_transformers(tmp_path, mesh1):
  params = _init(QWEN2, mesh1)
  hf.save(tmp_path, QWEN2, params)
  tensors = safetensors.numpy.load_file(tmp_path / 'model.safetensors')
  own = params['layers_1']
  for name, x in {
    'model.embed_tokens.weight': params['embedding'],
    'model.norm.weight': params['final_norm']['scale'],
    'model.layers.1.self_attn.q_proj.weight': own['attention']['query'][
      'kernel'
    ].T,
    'model.layers.1.self_attn.k_proj.bias': own['attention']['key']['bias'],
    'model.layers.1.mlp.down_proj.weight': own['mlp']['down']['kernel'].T,
    'model.layers.1.input_layernorm.weight': own['attention_norm']['scale'],
    'model.layers.1.post_attention_layernorm.weight': own['mlp_norm']['scale'],
  }.items():
    np.testing.assert_array_equal(tensors[name], x)
  assert len(tensors) == 2 + 2 * 12
  assert 'lm_head.weight' not in tensors


def test_several_files_and_bfloat16(tmp_path, mesh1, mesh8):
  config = dataclasses.replace(QWEN3, max_positions=4096)
  params = _init(config, mesh8)
  hf.save(tmp_path, config, params, dtype='bfloat16', max_file_bytes=3000)
  assert len(list(tmp_path.glob('*.safetensors'))) > 2
  assert not (tmp_path / 'model.safetensors').exists()
  rounded = jax.tree.map(
    lambda x: x.astype('bfloat16').astype('float32'), params
  )
  found, read = hf.load(tmp_path, mesh1)
  assert found == config
  _equal(read, rounded)
  found, low = hf.load(tmp_path, mesh1, param_dtype='bfloat16')
  assert found == dataclasses.replace(config, param_dtype='bfloat16')
  assert low['layers_0']['mlp']['up']['kernel'].dtype == 'bfloat16'
  _equal(jax.tree.map(lambda x: x.astype('float32'), low), rounded)
  # One file again: the old ones and their index are gone.
  hf.save(tmp_path, config, params)
  assert len(list(tmp_path.glob('*.safetensors*'))) == 1
  _equal(hf.load(tmp_path, mesh1)[1], params)


def test_a_host_reads_only_its_parts(tmp_path, mesh8):
  config = dataclasses.replace(LLAMA3, scan=True)
  params = _init(config, mesh8)
  asked = []

  def fetch(name, index):
    x = np.asarray(layout.get(config, params, name))
    asked.append((name, x[index].size / x.size))
    return x[index]

  _equal(layout.place(config, mesh8, sharding.TRAIN_RULES, fetch), params)
  kernels = [part for name, part in asked if name.path[-1] == 'kernel']
  assert set(kernels) == {0.25}
  # One tensor after the other: each is read in one go.
  order = [name.path for name, _ in asked]
  seen = [p for i, p in enumerate(order) if i == 0 or order[i - 1] != p]
  assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'model_type': 'gemma3'}, 'gemma3'),
    ({'architectures': ['LlamaForSequenceClassification']}, 'Classification'),
    ({'hidden_act': 'gelu'}, 'hidden_act'),
    ({'use_sliding_window': True}, 'use_sliding_window'),
    ({'layer_types': ['full_attention', 'sliding_attention']}, r'types\[1\]'),
    ({'quantization_config': {'bits': 4}}, 'quantization_config'),
    ({'rope_parameters': None, 'rope_scaling': {'type': 'yarn'}}, 'yarn'),
    ({'rope_parameters': None, 'rope_scaling': {'type': 'llama3'}}, 'low_freq'),
    ({'rope_scaling': {'type': 'yarn'}}, r"differ in \['rope_type'\] .*keep"),
    ({'rope_scaling': {'factor': 4.0}}, r"differ in \['factor'\] in config"),
    ({'rope_parameters': {'partial_rotary_factor': 0.5}}, 'partial_rotary'),
    ({'hidden_size': None}, 'hidden_size'),
    ({'pretraining_tp': 2}, 'pretraining_tp'),
    ({'rms_norm_eps': 10**400}, 'rms_norm_eps = 10+ in .*of 64 bits'),
  ],
)
def test_what_the_decoder_lacks_is_named(changes, message):
  raw = hf_config.to_json(LLAMA3, 'float32')
  assert hf_config.from_json(raw) == LLAMA3
  with pytest.raises(ValueError, match=message):
    hf_config.from_json(raw | changes)


def test_both_ways_to_write_the_rotation():
  new = hf_config.to_json(LLAMA3, 'float32')
  del new['rope_scaling'], new['rope_theta']
  assert hf_config.from_json(new) == LLAMA3
  old = hf_config.to_json(LLAMA3, 'float32')
  del old['rope_parameters']
  old['rope_scaling']['type'] = old['rope_scaling'].pop('rope_type')
  assert hf_config.from_json(old) == LLAMA3
  for key in ('rope_scaling', 'rope_theta'):
    del old[key]
  assert hf_config.from_json(old).rope_theta == 10_000


def test_no_family_for_these_switches():
  with pytest.raises(ValueError, match='mlp_bias = True'):
    hf_config.to_json(dataclasses.replace(QWEN3, mlp_bias=True), 'float32')


def test_files_that_do_not_fit(tmp_path, mesh1):
  with pytest.raises(FileNotFoundError, match='config.json'):
    hf.load(tmp_path, mesh1)
  hf.save(tmp_path, QWEN3, _init(QWEN3, mesh1))
  with pytest.raises(ValueError, match='layers.*cannot be set'):
    hf.load(tmp_path, mesh1, layers=3)
  path = tmp_path / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  # A tied model may bring its output table, old ones bring their frequencies.
  more = {
    'lm_head.weight': tensors['model.embed_tokens.weight'],
    'model.layers.0.self_attn.rotary_emb.inv_freq': np.ones(4, np.float32),
  }
  safetensors.numpy.save_file(tensors | more, path)
  hf.load(tmp_path, mesh1)
  name = 'model.layers.1.mlp.up_proj.weight'
  safetensors.numpy.save_file(tensors | {'other': more['lm_head.weight']}, path)
  with pytest.raises(ValueError, match='other'):
    hf.load(tmp_path, mesh1)
  wrong = {name: np.zeros((5, 16), np.float32)}
  safetensors.numpy.save_file(tensors | wrong, path)
  with pytest.raises(ValueError, match=r'up_proj.*\(5, 16\)'):
    hf.load(tmp_path, mesh1)
  safetensors.numpy.save_file({name: tensors[name]}, path)
  with pytest.raises(ValueError, match='missing'):
    hf.load(tmp_path, mesh1)
  wrong = {name: tensors[name].astype(np.int8)}
  safetensors.numpy.save_file(tensors | wrong, path)
  with pytest.raises(ValueError, match='I8'):
    hf.load(tmp_path, mesh1)
  path.unlink()
  with pytest.raises(FileNotFoundError, match='model.safetensors'):
    hf.load(tmp_path, mesh1)


def test_a_stale_index_is_passed_over(tmp_path, mesh1, caplog):
  params = _init(QWEN3, mesh1)
  old = jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), params)
  hf.save(tmp_path, QWEN3, old, max_file_bytes=3000)
  kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  hf.save(tmp_path, QWEN3, params)
  for name in kept.keys() - {'config.json'}:
    (tmp_path / name).write_bytes(kept[name])
  _equal(hf.load(tmp_path, mesh1)[1], params)
  assert 'holds model.safetensors and model.safetensors.index' in caplog.text
  # An index of the one file is no other.
  caplog.clear()
  index = tmp_path / 'model.safetensors.index.json'
  weights = json.loads(index.read_text())['weight_map']
  weights = dict.fromkeys(weights, 'model.safetensors')
  index.write_text(json.dumps({'weight_map': weights}))
  _equal(hf.load(tmp_path, mesh1)[1], params)
  assert caplog.text == ''


def test_a_tied_model_with_another_head_is_kept_so(tmp_path, mesh1, caplog):
  untied = dataclasses.replace(
    QWEN3, tie_embeddings=False, max_positions=32_768
  )
  params = _init(untied, mesh1)
  hf.save(tmp_path, untied, params)
  path = tmp_path / 'config.json'
  raw = json.loads(path.read_text()) | {'tie_word_embeddings': True}
  path.write_text(json.dumps(raw))
  found, read = hf.load(tmp_path, mesh1)
  assert found == untied
  _equal(read, params)
  assert 'lm_head.weight and model.embed_tokens.weight differ' in caplog.text


@pytest.mark.parametrize('name', ['../secret', '/etc/passwd', 'a/../../x'])
def test_an_index_cannot_name_files_elsewhere(tmp_path, mesh1, name):
  directory = tmp_path / 'model'
  hf.save(directory, QWEN3, _init(QWEN3, mesh1))
  (tmp_path / 'secret').write_bytes(b'x')
  index = {'weight_map': {'model.norm.weight': name}}
  (directory / 'model.safetensors.index.json').write_text(json.dumps(index))
  with pytest.raises(ValueError, match='all files of a model lie in its dir'):
    hf.load(directory, mesh1)


@pytest.mark.parametrize('tied', [False, True])
def test_new_rows_and_nothing_else(tied, mesh8):
  config = dataclasses.replace(QWEN3, tie_embeddings=tied)
  params = _init(config, mesh8)
  grown, new = grow.grow(
    config,
    params,
    60,
    1088,
    mesh=mesh8,
    rules=sharding.TRAIN_RULES,
    key=jax.random.key(0),
  )
  assert grown == dataclasses.replace(config, vocab_size=1088)
  tables = ('embedding',) if tied else ('embedding', 'output')
  for name in tables:
    old, x = np.asarray(params[name]), np.asarray(new[name])
    assert x.shape == (1088, 16)
    assert new[name].sharding == params[name].sharding
    np.testing.assert_array_equal(x[:60], old[:60])
    rows, known = x[60:], old[:60]
    # 1,028 draws of a tenth of the known rows' spread: a mean is known to a
    # thirtieth of that, a deviation to 2 %; both bounds are four times as wide.
    error = np.abs(rows.mean(0) - known.mean(0)) / known.std(0)
    assert error.max() < 0.0125
    ratio = rows.std(0) / known.std(0)
    assert np.abs(ratio - 0.1).max() < 0.01
    assert len(np.unique(rows, axis=0)) == 1028
  for name in set(params) - set(tables):
    _equal(new[name], params[name])
  with pytest.raises(ValueError, match='cannot keep 65'):
    grow.grow(
      config,
      params,
      65,
      128,
      mesh=mesh8,
      rules=sharding.TRAIN_RULES,
      key=jax.random.key(0),
    )
