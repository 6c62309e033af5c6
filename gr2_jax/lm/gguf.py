"""Pretrained models out of GGUF files, the format of llama.cpp.

One file holds the shape, the weights (often quantised) and the tokenizer.
"""

import os
from typing import Any

import jax
import numpy as np
import tokenizers

from gr2_jax import sharding
from gr2_jax.lm import attention, gguf_tokenizer, layout, tensor_files
from gr2_jax.lm.config import LMConfig
from gr2_jax.lm.gguf_file import File

ARCHITECTURES = ('llama', 'qwen2', 'qwen3')

# Metadata below the architecture's name that says what `_config` reads, or
# nothing about the function: the length that the model was trained for.
_READ = {
  *('block_count', 'embedding_length', 'feed_forward_length', 'vocab_size'),
  *('attention.head_count', 'attention.head_count_kv'),
  *('attention.key_length', 'attention.value_length'),
  *('attention.layer_norm_rms_epsilon', 'rope.freq_base'),
  *('rope.dimension_count', 'context_length'),
}
# What is not supported, with the values that ask for nothing.
_NEUTRAL = {
  'rope.scaling.type': ('none', 'linear'),  # linear by the factor below
  'rope.scaling.factor': (0, 1),
  'rope.scaling.attn_factor': (1,),
  'rope.scale_linear': (1,),
  'attention.sliding_window': (0,),
  'attention.causal': (True,),
  'expert_count': (0,),
  'expert_used_count': (0,),
  # Rows of Q and K in the order that `_rows` expects.
  'tensor_data_layout': ('Meta AI original pth',),
}

_FREQUENCIES = 'rope_freqs.weight'
# Llama 3.1 and 3.2: factor, low, high, original length.
_LLAMA3 = ((8.0, 1.0, 4.0, 8192.0), (32.0, 1.0, 4.0, 8192.0))

# Our names -> names in the file.
_TOP = {
  'embedding': 'token_embd.weight',
  'output': 'output.weight',
  'final_norm/scale': 'output_norm.weight',
}
_LAYER = {
  'attention_norm/scale': 'attn_norm.weight',
  'attention/query_norm/scale': 'attn_q_norm.weight',
  'attention/key_norm/scale': 'attn_k_norm.weight',
  'mlp_norm/scale': 'ffn_norm.weight',
}
_LINEAR = {
  'attention/query': 'attn_q',
  'attention/key': 'attn_k',
  'attention/value': 'attn_v',
  'attention/out': 'attn_output',
  'mlp/gate': 'ffn_gate',
  'mlp/up': 'ffn_up',
  'mlp/down': 'ffn_down',
}


def load(
  path: str | os.PathLike[str],
  mesh: jax.sharding.Mesh | None = None,
  rules: sharding.Rules = sharding.TRAIN_RULES,
  **settings: Any,
) -> tuple[LMConfig, Any, tokenizers.Tokenizer]:
  """Reads a model onto a mesh; one tensor at a time is dequantised.

  Args:
    path: a GGUF file of one of `ARCHITECTURES`.
    mesh: the mesh; all devices on the data axis by default.
    rules: TRAIN_RULES or DECODE_RULES.
    **settings: fields of LMConfig that are not the checkpoint's, those of
      `config.RUNTIME`.

  Returns:
    (config, params sharded as the rules say, tokenizer).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged, or holds what this decoder does not
      compute: each is named.
  """
  layout.check_settings(settings)
  file = File(path)
  config = _config(file, settings)
  _check_tensors(file, config)
  tokenizer = gguf_tokenizer.build(file, config.vocab_size)
  permuted = file.get('general.architecture') == 'llama'

  def fetch(name: layout.Name, index: tuple[slice, ...]) -> np.ndarray:
    rows = _rows(name, config) if permuted else None
    x = file.read(_source(name), rows)
    tensor_files.finite(x, _source(name), file.path)
    return x[index[::-1]].T if name.path[-1] == 'kernel' else x[index]

  mesh = sharding.make_mesh() if mesh is None else mesh
  return config, layout.place(config, mesh, rules, fetch), tokenizer


def read_config(path: str | os.PathLike[str], **settings: Any) -> LMConfig:
  """Reads the shape of a model and none of its tensors; see `load`."""
  return _config(File(path), settings)


def read_tokenizer(path: str | os.PathLike[str]) -> tokenizers.Tokenizer:
  """Makes the tokenizer of a model and reads none of its tensors."""
  file = File(path)
  return gguf_tokenizer.build(file, _config(file, {}).vocab_size)


def roles(path: str | os.PathLike[str]) -> dict[str, str | None]:
  """Returns the names of the tokens with a role: `gguf_tokenizer.roles`."""
  return gguf_tokenizer.roles(File(path))


def _config(file: File, settings: dict[str, Any]) -> LMConfig:
  kind = file.get('general.type', 'model')
  if kind != 'model':
    raise ValueError(
      f'{file.path} holds no model but the general.type {kind!r}: give the '
      'file of a whole model.'
    )
  arch = file.require('general.architecture', str)
  if arch not in ARCHITECTURES:
    raise ValueError(
      f'{file.path} is of the architecture {arch!r}; the known ones are '
      f'{list(ARCHITECTURES)}. Use a model of one of them.'
    )
  _check_metadata(file, arch)

  def size(key: str, default: int | None = None) -> int:
    return file.size(f'{arch}.{key}', default)

  def bias(tensor: str) -> bool:
    return f'blk.0.{tensor}.bias' in file.shapes

  width, heads = size('embedding_length'), size('attention.head_count')
  head_dim = size('attention.key_length', max(width // heads, 1))
  for key in ('attention.value_length', 'rope.dimension_count'):
    if size(key, head_dim) != head_dim:
      raise ValueError(
        f'{file.path}: {arch}.{key} is {size(key)} where heads are '
        f'{head_dim} wide: only models where both are the same can be loaded.'
      )
  theta = file.number(f'{arch}.rope.freq_base', 10000.0)
  tokens = file.require(gguf_tokenizer.TOKENS, [str])
  return _shape(
    file,
    vocab_size=size('vocab_size', len(tokens)),
    width=width,
    layers=size('block_count'),
    heads=heads,
    kv_heads=size('attention.head_count_kv', heads),
    head_dim=head_dim,
    mlp_dim=size('feed_forward_length'),
    max_positions=size('context_length', 0),
    rope_theta=theta,
    rope_scaling=_rope_scaling(file, head_dim, theta),
    norm_eps=file.number(f'{arch}.attention.layer_norm_rms_epsilon'),
    qk_norm=arch == 'qwen3',
    qkv_bias=arch == 'qwen2' or bias('attn_q'),
    out_bias=bias('attn_output'),
    mlp_bias=bias('ffn_gate'),
    tie_embeddings=_TOP['output'] not in file.shapes,
    **settings,
  )


def _shape(file: File, **fields: Any) -> LMConfig:
  try:
    return LMConfig(**fields)
  except ValueError as error:
    raise ValueError(f'{file.path}: {error}') from error


def _check_metadata(file: File, arch: str) -> None:
  prefix = f'{arch}.'
  for key in file.keys:
    if not key.startswith(prefix):
      continue
    name, value = key.removeprefix(prefix), file.get(key)
    if name in _READ:
      if isinstance(value, list):
        raise ValueError(
          f'{file.path}: {key} is {value}, one for each layer; only models '
          'with one for all layers can be loaded.'
        )
    elif name not in _NEUTRAL or value not in _NEUTRAL[name]:
      raise ValueError(
        f'{file.path} asks for {key} = {value!r}, which this decoder does not '
        'compute: use a model without it.'
      )


def _rope_scaling(file: File, head_dim: int, theta: float) -> tuple[float, ...]:
  """Finds the scaling whose divisors of the frequencies the file holds."""
  if _FREQUENCIES not in file.shapes:
    return ()
  found = file.read(_FREQUENCIES)
  plain = attention.frequencies(head_dim, theta, ())
  for scaling in ((), *_LLAMA3):
    divisors = plain / attention.frequencies(head_dim, theta, scaling)
    if found.shape == divisors.shape and np.allclose(
      found, divisors, rtol=1e-4, atol=0
    ):
      return scaling
  raise ValueError(
    f'{file.path}: {_FREQUENCIES} {found.shape} from {found.min()} to '
    f'{found.max()} is none of the known rotary scalings (factor, low, high, '
    f'original length) {list(_LLAMA3)}: use a model with one of them.'
  )


def _check_tensors(file: File, config: LMConfig) -> None:
  if config.layers > len(file.shapes):
    raise ValueError(
      f'{file.path} asks for {config.layers} layers and holds '
      f'{len(file.shapes)} tensors in all: fetch it again.'
    )
  wanted = {}
  for name, shape in layout.names(config):
    kernel = name.path[-1] == 'kernel'
    wanted[_source(name)] = shape[::-1] if kernel else shape
  missing = sorted(set(wanted) - set(file.shapes))
  if missing:
    raise ValueError(
      f'{file.path} lacks {len(missing)} tensors that its metadata asks for, '
      f'such as {missing[:4]}: convert the model again.'
    )
  unknown = sorted(set(file.shapes) - set(wanted) - {_FREQUENCIES})
  if unknown:
    raise ValueError(
      f'{file.path} holds {len(unknown)} tensors that this decoder has no '
      f'place for, such as {unknown[:4]}: use a model without them.'
    )
  for name, shape in wanted.items():
    if file.shapes[name] != shape:
      raise ValueError(
        f'{file.path}: {name} is {file.shapes[name]} where the metadata asks '
        f'for {shape}: convert the model again.'
      )


def _source(name: layout.Name) -> str:
  """Returns a tensor's name in the file."""
  path = '/'.join(name.path)
  if name.layer is None:
    return _TOP[path]
  if path in _LAYER:
    return f'blk.{name.layer}.{_LAYER[path]}'
  module, _, leaf = path.rpartition('/')
  suffix = 'weight' if leaf == 'kernel' else leaf
  return f'blk.{name.layer}.{_LINEAR[module]}.{suffix}'


def _rows(name: layout.Name, config: LMConfig) -> np.ndarray | None:
  """Undoes the order of Q's and K's rows in files of the llama architecture.

  They pair neighbours for rotation: feature i of a head's first half, then its
  partner in the second half. Ours has the halves one after the other.

  Args:
    name: of the tensor.
    config: of the model.

  Returns:
    int [rows]: where our rows are in the file; None for all other tensors.
  """
  heads = {
    ('attention', 'query'): config.heads,
    ('attention', 'key'): config.kv_heads,
  }.get(name.path[:2])
  if heads is None:
    return None
  places = np.arange(heads * config.head_dim)
  return places.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
