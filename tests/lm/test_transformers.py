"""Equality with transformers on random models of every family.

Runs where transformers and torch are installed; see tests/README.md.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.lm import decoder, hf, tails

transformers = pytest.importorskip('transformers')
torch = pytest.importorskip('torch')
pytestmark = pytest.mark.slow

SHAPE = dict(
  vocab_size=96,
  hidden_size=48,
  intermediate_size=80,
  num_hidden_layers=3,
  num_attention_heads=6,
  num_key_value_heads=2,
  rms_norm_eps=1e-5,
  max_position_embeddings=512,
  initializer_range=0.3,
  bos_token_id=1,
  eos_token_id=2,
  pad_token_id=0,
)
LLAMA3 = {
  'rope_type': 'llama3',
  'rope_theta': 500_000.0,
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 64,
}
MODELS = {
  'qwen3': ('Qwen3', dict(head_dim=16)),
  'qwen3-tied': ('Qwen3', dict(head_dim=8, tie_word_embeddings=True)),
  'qwen3-biased': ('Qwen3', dict(head_dim=10, attention_bias=True)),
  'qwen2': ('Qwen2', {}),
  'qwen2-tied': ('Qwen2', dict(tie_word_embeddings=True)),
  'llama': ('Llama', {}),
  'llama-one-kv-head': ('Llama', dict(num_key_value_heads=1, head_dim=12)),
  'llama-all-kv-heads': ('Llama', dict(num_key_value_heads=6)),
  'llama-biased': ('Llama', dict(attention_bias=True, mlp_bias=True)),
  'llama3': ('Llama', dict(rope_parameters=LLAMA3)),
  'smollm2': (
    'Llama',
    dict(
      tie_word_embeddings=True,
      num_attention_heads=3,
      num_key_value_heads=3,
      rope_parameters={'rope_type': 'default', 'rope_theta': 100_000.0},
    ),
  ),
}
# Relative to the spread of the logits. Both sides sum in float32, in other
# orders, over some layers.
TOLERANCE = 1e-4


def _theirs(name):
  family, changes = MODELS[name]
  config = getattr(transformers, f'{family}Config')(**SHAPE | changes)
  torch.manual_seed(0)
  model = getattr(transformers, f'{family}ForCausalLM')(config).eval()
  with torch.no_grad():
    for key, x in model.named_parameters():
      # Transformers starts these at 0 and 1, which would hide them.
      if key.endswith('bias'):
        x.normal_(std=0.3)
      elif 'norm' in key:
        x.uniform_(0.5, 1.5)
  return model


@functools.cache
def _pair(name, tmp):
  model = _theirs(name)
  directory = tmp / name
  model.save_pretrained(directory)
  return model, directory


@pytest.fixture(scope='module')
def tmp(tmp_path_factory):
  return tmp_path_factory.mktemp('models')


def _close(ours, theirs):
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert theirs.std() > 0.1
  error = np.abs(ours - theirs).max() / theirs.std()
  assert error < TOLERANCE, error


def _rows(seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(3, 96, (4, 150)), np.array([150, 149, 33, 1])


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('scan', [False, True])
def test_logits(name, scan, tmp, mesh1):
  model, directory = _pair(name, tmp)
  config, params = hf.load(directory, mesh1, scan=scan)
  tokens, _ = _rows()
  with torch.no_grad():
    theirs = model(torch.tensor(tokens)).logits
  apply = jax.jit(decoder.Decoder(config).apply)
  _close(apply({'params': params}, jnp.asarray(tokens)), theirs)


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('name', ['qwen3', 'qwen2', 'llama3'])
def test_padded_batches(name, side, tmp, mesh1):
  model, directory = _pair(name, tmp)
  config, params = hf.load(directory, mesh1)
  tokens, lengths = _rows()
  place = np.arange(150)[None]
  valid = place < lengths[:, None]
  if side == 'left':
    valid = valid[:, ::-1]
  positions = np.maximum(valid.cumsum(1) - 1, 0)
  with torch.no_grad():
    theirs = model(
      torch.tensor(tokens),
      attention_mask=torch.tensor(valid.astype(np.int64)),
      position_ids=torch.tensor(positions),
    ).logits
  ours = jax.jit(decoder.Decoder(config).apply)(
    {'params': params}, tokens, positions, valid.astype(np.int32)
  )
  _close(np.asarray(ours)[valid], theirs.numpy()[valid])


@pytest.mark.parametrize('scan', [False, True])
@pytest.mark.parametrize('name', ['qwen3-biased', 'qwen2', 'llama3'])
def test_cache_token_by_token(name, scan, tmp, mesh1):
  model, directory = _pair(name, tmp)
  config, params = hf.load(directory, mesh1, scan=scan)
  tokens, _ = _rows()
  prompt, steps = 140, 10
  lengths = np.array([140, 139, 33, 1])
  valid = np.arange(prompt)[None] < lengths[:, None]
  run = lambda method: jax.jit(
    functools.partial(
      decoder.Decoder(config).apply, {'params': params}, method=method
    )
  )
  extend, unembed = run('extend'), run('unembed')
  last, kv = run('prefill')(tokens[:, :prompt], valid)
  cache = tails.empty(config, 4, 1, steps)
  logits = [unembed(last)]
  for step in range(steps):
    hidden, cache = extend(
      tokens[:, None, prompt + step : prompt + step + 1],
      (lengths + step)[:, None, None],
      kv,
      valid,
      cache,
      index=jnp.int32(step),
    )
    logits.append(unembed(hidden)[:, 0])
  ours = np.concatenate(logits, 1)
  for row, length in enumerate(lengths):
    whole = np.r_[tokens[row, :length], tokens[row, prompt:]]
    with torch.no_grad():
      theirs = model(torch.tensor(whole[None])).logits[0, length - 1 :]
    _close(ours[row], theirs)


@pytest.mark.parametrize('name', MODELS)
def test_export_and_greedy_continuation(name, tmp, tmp_path, mesh1):
  _, directory = _pair(name, tmp)
  config, params = hf.load(directory, mesh1, scan=True)
  hf.save(
    tmp_path,
    config,
    params,
    special={'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0},
    max_file_bytes=20_000,
  )
  index = json.loads((tmp_path / 'model.safetensors.index.json').read_text())
  assert len(set(index['weight_map'].values())) > 1
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
  prompt = _rows(1)[0][:1, :7]
  theirs = again.generate(
    torch.tensor(prompt), do_sample=False, max_new_tokens=20, min_new_tokens=20
  )[0].tolist()
  apply = jax.jit(decoder.Decoder(config).apply)
  ours = prompt[0].tolist()
  while len(ours) < 27:
    row = np.zeros((1, 27), np.int32)
    row[0, : len(ours)] = ours
    logits = np.array(apply({'params': params}, row)[0, len(ours) - 1])
    logits[2] = -np.inf
    ours.append(int(logits.argmax()))
  assert ours == theirs


def test_config_as_transformers_4_writes_it(tmp, tmp_path, mesh1):
  model, directory = _pair('llama3', tmp)
  raw = json.loads((directory / 'config.json').read_text())
  rope = dict(raw.pop('rope_parameters'))
  raw['rope_theta'] = rope.pop('rope_theta')
  raw['rope_scaling'] = {'type': rope.pop('rope_type'), **rope}
  for path in directory.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'config.json').write_text(json.dumps(raw))
  assert hf.load(tmp_path, mesh1)[0] == hf.load(directory, mesh1)[0]
