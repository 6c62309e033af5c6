"""`config.json` of a Hugging Face model, to and from `LMConfig`.

Reads what transformers 4 writes (`rope_theta`, `rope_scaling`) and what
transformers 5 does (`rope_parameters`). A model that needs something this
decoder lacks is refused by name.
"""

import sys
from collections.abc import Mapping
from typing import Any

from gr2_jax.lm import layout
from gr2_jax.lm.config import MOST, LMConfig

_ARCHITECTURES = {
  'llama': 'LlamaForCausalLM',
  'qwen2': 'Qwen2ForCausalLM',
  'qwen3': 'Qwen3ForCausalLM',
}
_LLAMA3 = (
  'factor',
  'low_freq_factor',
  'high_freq_factor',
  'original_max_position_embeddings',
)
# What changes the network and is not built here, with the values that mean off.
_LACKING = {
  'hidden_act': ('silu',),
  'use_sliding_window': (False, None),
  'quantization_config': (None,),
  'partial_rotary_factor': (1, 1.0, None),
  'pretraining_tp': (1, None),
}


def from_json(raw: Mapping[str, Any], **settings: Any) -> LMConfig:
  """Reads the shape of a model.

  Args:
    raw: content of `config.json`.
    **settings: fields of `config.RUNTIME`.

  Returns:
    The shape.

  Raises:
    ValueError: another family, or something that this decoder lacks.
  """
  layout.check_settings(settings)
  family = raw.get('model_type')
  if not isinstance(family, str) or family not in _ARCHITECTURES:
    raise ValueError(
      f'model_type = {family!r} is not one of {sorted(_ARCHITECTURES)}: this '
      'decoder cannot compute it.'
    )
  _refuse(raw, family)
  heads = size(raw, 'num_attention_heads')
  biased = _switch(raw, 'attention_bias')
  theta, scaling = _rope(raw)
  return LMConfig(
    vocab_size=size(raw, 'vocab_size'),
    width=size(raw, 'hidden_size'),
    layers=size(raw, 'num_hidden_layers'),
    heads=heads,
    kv_heads=size(raw, 'num_key_value_heads', heads),
    head_dim=_head_dim(raw, family),
    mlp_dim=size(raw, 'intermediate_size'),
    max_positions=size(raw, 'max_position_embeddings', 0),
    rope_theta=theta,
    rope_scaling=scaling,
    norm_eps=number(raw, 'rms_norm_eps', 1e-6),
    qk_norm=family == 'qwen3',
    qkv_bias=biased or family == 'qwen2',
    out_bias=biased and family != 'qwen2',
    mlp_bias=family == 'llama' and _switch(raw, 'mlp_bias'),
    tie_embeddings=_switch(raw, 'tie_word_embeddings'),
    **settings,
  )


def to_json(config: LMConfig, dtype: str) -> dict[str, Any]:
  """Writes the shape of a model; the family is what its switches make.

  Args:
    config: the shape, without LoRA.
    dtype: 'float32' or 'bfloat16', of the tensors beside it.

  Returns:
    Content of a `config.json` that transformers 4 and 5 read.

  Raises:
    ValueError: no family has these switches.
  """
  family = _family(config)
  rope: dict[str, Any] = {'rope_type': 'default'}
  if config.rope_scaling:
    rope = {'rope_type': 'llama3'}
    rope |= dict(zip(_LLAMA3, config.rope_scaling, strict=True))
    rope[_LLAMA3[3]] = int(rope[_LLAMA3[3]])
  raw = {
    'architectures': [_ARCHITECTURES[family]],
    'model_type': family,
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_dim,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'head_dim': config.head_dim,
    'hidden_act': 'silu',
    'max_position_embeddings': config.max_positions or 32_768,
    'rms_norm_eps': config.norm_eps,
    'rope_theta': config.rope_theta,
    'rope_scaling': rope if config.rope_scaling else None,
    'rope_parameters': {**rope, 'rope_theta': config.rope_theta},
    'tie_word_embeddings': config.tie_embeddings,
    'attention_dropout': 0.0,
    'torch_dtype': dtype,
  }
  if family != 'qwen2':
    raw['attention_bias'] = config.qkv_bias
  if family == 'llama':
    raw['mlp_bias'] = config.mlp_bias
  else:
    raw['use_sliding_window'] = False
  return raw


def _family(config: LMConfig) -> str:
  if config.qk_norm:
    fits, family = config.qkv_bias == config.out_bias, 'qwen3'
  elif config.qkv_bias and not config.out_bias:
    # Qwen2 has no head width of its own.
    fits = config.heads * config.head_dim == config.width
    family = 'qwen2'
  else:
    fits, family = config.qkv_bias == config.out_bias, 'llama'
  if family != 'llama':
    fits = fits and not config.mlp_bias
  if not fits:
    raise ValueError(
      'No family of Hugging Face models has qk_norm = '
      f'{config.qk_norm}, qkv_bias = {config.qkv_bias}, out_bias = '
      f'{config.out_bias}, mlp_bias = {config.mlp_bias} with '
      f'{config.heads} heads of {config.head_dim} in a width of '
      f'{config.width}: such a model cannot be exported.'
    )
  return family


def size(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
  """Reads a whole number from 1 on.

  Args:
    raw: content of `config.json`.
    key: of the number.
    default: where nothing, or 0, is said; None: it must be there.

  Raises:
    ValueError: it is missing, or no such number.
  """
  value = raw.get(key) or default
  if value is None:
    raise ValueError(
      f'config.json has no {key!r}: it is not of a model that is read here.'
    )
  whole = isinstance(value, int) and not isinstance(value, bool)
  if not whole or value != default and not 0 < value <= MOST:
    raise ValueError(
      f'{key} = {value!r} in config.json is not a whole number from 1 to '
      f'{MOST}: fetch the model again.'
    )
  return value


def number(raw: Mapping[str, Any], key: str, default: float) -> float:
  """Reads a positive number.

  Args:
    raw: content of `config.json`, or an object in it.
    key: of the number.
    default: where nothing is said.

  Raises:
    ValueError: it is no such number.
  """
  value = default if raw.get(key) is None else raw[key]
  real = isinstance(value, (int, float)) and not isinstance(value, bool)
  # A whole number of JSON may be larger than any float.
  if not real or not 0 < value <= sys.float_info.max:
    raise ValueError(
      f'{key} = {value!r:.40} in config.json is not a positive number of 64 '
      'bits: fetch the model again.'
    )
  return float(value)


def _switch(raw: Mapping[str, Any], key: str) -> bool:
  """Reads a switch that is off where nothing is said."""
  value = raw.get(key)
  if not isinstance(value, (bool, type(None))):
    raise ValueError(
      f'{key} = {value!r} in config.json is neither true nor false: fetch the '
      'model again.'
    )
  return bool(value)


def _head_dim(raw: Mapping[str, Any], family: str) -> int:
  width, heads = size(raw, 'hidden_size'), size(raw, 'num_attention_heads')
  # Transformers gives Qwen3 heads of 128 where its config does not say.
  default = 128 if family == 'qwen3' else max(width // heads, 1)
  return size(raw, 'head_dim', default)


def _refuse(raw: Mapping[str, Any], family: str) -> None:
  known = _ARCHITECTURES[family]
  architectures = raw.get('architectures') or [known]
  if architectures != [known]:
    raise ValueError(
      f'architectures = {architectures}: only {known} is read of the family '
      f'{family!r}.'
    )
  for key, off in _LACKING.items():
    if raw.get(key, off[0]) not in off:
      raise ValueError(
        f'{key} = {raw[key]!r} in config.json: this decoder has only '
        f'{key} = {off[0]!r}.'
      )
  kinds = raw.get('layer_types') or []
  for index, kind in enumerate(kinds if isinstance(kinds, list) else [kinds]):
    if kind != 'full_attention':
      raise ValueError(
        f'layer_types[{index}] = {kind!r} in config.json: this decoder has '
        'only full attention.'
      )


def _rope(raw: Mapping[str, Any]) -> tuple[float, tuple[float, ...]]:
  """Returns base and scaling of the rotary frequencies."""
  rope: dict[str, Any] = {}
  for key in ('rope_scaling', 'rope_parameters'):
    found = raw.get(key) or {}
    if not isinstance(found, dict):
      raise ValueError(
        f'{key} = {found!r} in config.json is no object: fetch the model again.'
      )
    # As in `rope_scaling` of old.
    found = {'rope_type' if k == 'type' else k: x for k, x in found.items()}
    differ = sorted(k for k, x in found.items() if rope.get(k, x) != x)
    if differ:
      raise ValueError(
        f'rope_scaling and rope_parameters differ in {differ} in config.json: '
        'keep the one that is meant.'
      )
    rope |= found
  theta = number(raw, 'rope_theta', 10_000.0)
  theta = number(rope, 'rope_theta', theta)
  kind = rope.get('rope_type', 'default')
  if rope.get('partial_rotary_factor', 1) != 1:
    raise ValueError(
      f'partial_rotary_factor = {rope["partial_rotary_factor"]}: this decoder '
      'rotates whole heads.'
    )
  if kind == 'default':
    return theta, ()
  if kind != 'llama3':
    raise ValueError(
      f'rotary scaling of type {kind!r}: this decoder has only the types '
      "'default' and 'llama3'."
    )
  missing = [key for key in _LLAMA3 if rope.get(key) is None]
  if missing:
    raise ValueError(f'rotary scaling of type llama3 lacks {missing}.')
  return theta, tuple(number(rope, key, 0.0) for key in _LLAMA3)
