"""`config.json` of a Hugging Face model, to and from `LMConfig`.

Reads what transformers 4 writes (`rope_theta`, `rope_scaling`) and what
transformers 5 does (`rope_parameters`). A model that needs something this
decoder lacks is refused by name.
"""

from collections.abc import Mapping
from typing import Any

from gr2_jax.lm import layout
from gr2_jax.lm.config import LMConfig

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
  if family not in _ARCHITECTURES:
    raise ValueError(
      f'model_type = {family!r} is not one of {sorted(_ARCHITECTURES)}: this '
      'decoder cannot compute it.'
    )
  _refuse(raw, family)
  heads = _need(raw, 'num_attention_heads')
  biased = bool(raw.get('attention_bias', False))
  theta, scaling = _rope(raw)
  return LMConfig(
    vocab_size=_need(raw, 'vocab_size'),
    width=_need(raw, 'hidden_size'),
    layers=_need(raw, 'num_hidden_layers'),
    heads=heads,
    kv_heads=raw.get('num_key_value_heads') or heads,
    head_dim=_head_dim(raw, family),
    mlp_dim=_need(raw, 'intermediate_size'),
    max_positions=raw.get('max_position_embeddings') or 0,
    rope_theta=theta,
    rope_scaling=scaling,
    norm_eps=raw.get('rms_norm_eps', 1e-6),
    qk_norm=family == 'qwen3',
    qkv_bias=biased or family == 'qwen2',
    out_bias=biased and family != 'qwen2',
    mlp_bias=family == 'llama' and bool(raw.get('mlp_bias', False)),
    tie_embeddings=bool(raw.get('tie_word_embeddings', False)),
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


def _need(raw: Mapping[str, Any], key: str) -> Any:
  if raw.get(key) is None:
    raise ValueError(f'config.json has no {key!r}: it is not a decoder LLM.')
  return raw[key]


def _head_dim(raw: Mapping[str, Any], family: str) -> int:
  width, heads = _need(raw, 'hidden_size'), _need(raw, 'num_attention_heads')
  # Transformers gives Qwen3 heads of 128 where its config does not say.
  return raw.get('head_dim') or (128 if family == 'qwen3' else width // heads)


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
  for index, kind in enumerate(raw.get('layer_types') or ()):
    if kind != 'full_attention':
      raise ValueError(
        f'layer_types[{index}] = {kind!r} in config.json: this decoder has '
        'only full attention.'
      )


def _rope(raw: Mapping[str, Any]) -> tuple[float, tuple[float, ...]]:
  """Returns base and scaling of the rotary frequencies."""
  rope = {**(raw.get('rope_scaling') or {})}
  rope |= raw.get('rope_parameters') or {}
  theta = rope.get('rope_theta') or raw.get('rope_theta') or 10_000.0
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if rope.get('partial_rotary_factor', 1) != 1:
    raise ValueError(
      f'partial_rotary_factor = {rope["partial_rotary_factor"]}: this decoder '
      'rotates whole heads.'
    )
  if kind == 'default':
    return float(theta), ()
  if kind != 'llama3':
    raise ValueError(
      f'rotary scaling of type {kind!r}: this decoder has only the types '
      "'default' and 'llama3'."
    )
  missing = [key for key in _LLAMA3 if rope.get(key) is None]
  if missing:
    raise ValueError(f'rotary scaling of type llama3 lacks {missing}.')
  return float(theta), tuple(float(rope[key]) for key in _LLAMA3)
