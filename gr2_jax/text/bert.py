"""A BERT encoder in Linen, and its weights from safetensors.

Devlin et al., arXiv 1810.04805: learned positions, post-norm, GELU. One vector
a text comes from mean pooling and L2 norm, as in Sentence-BERT (arXiv
1908.10084). Letters: B texts, T tokens, D width, N heads, H head width.
"""

import dataclasses
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import files
from gr2_jax.lm import dots, hf_config, tensor_files


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """Shape of a BERT encoder; the defaults are those of MiniLM-L6.

  Attributes:
    vocab_size: V.
    width: D.
    layers: number of layers.
    heads: N.
    mlp_dim: width of the feed-forward layer.
    positions: the longest text, in tokens.
    norm_eps: of the layer norms.
    bf16_matmul: operands of the projections in bfloat16, sums in float32.
  """

  vocab_size: int = 30522
  width: int = 384
  layers: int = 6
  heads: int = 12
  mlp_dim: int = 1536
  positions: int = 512
  norm_eps: float = 1e-12
  bf16_matmul: bool = False


class _Dense(nn.Module):
  """An affine map of [B, T, D] whose product runs on the shared helper."""

  features: int
  bf16: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.normal(0.02), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    flat = x.reshape(-1, x.shape[-1])
    y = dots.einsum('td,df->tf', flat, kernel, self.bf16) + bias[None, :]
    return y.reshape(*x.shape[:-1], self.features)


class _Layer(nn.Module):
  """Self-attention and feed-forward, each followed by its norm."""

  config: BertConfig

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
    cfg = self.config

    def dense(name, features):
      return _Dense(features, cfg.bf16_matmul, name=name)

    def norm(name):
      return nn.LayerNorm(epsilon=cfg.norm_eps, name=name)

    def heads(name):
      return dense(name, cfg.width)(x).reshape(*x.shape[:2], cfg.heads, -1)

    q, k, v = heads('query'), heads('key'), heads('value')
    scores = jnp.einsum('btnh,bsnh->bnts', q, k) * q.shape[-1] ** -0.5
    scores = jnp.where(mask[:, None, None, :], scores, -1e30)
    mixed = jnp.einsum('bnts,bsnh->btnh', jax.nn.softmax(scores), v)
    mixed = dense('attention_output', cfg.width)(mixed.reshape(x.shape))
    x = norm('attention_norm')(x + mixed)
    inner = nn.gelu(dense('mlp_in', cfg.mlp_dim)(x), approximate=False)
    return norm('mlp_norm')(x + dense('mlp_out', cfg.width)(inner))


class Bert(nn.Module):
  """Texts as token ids to unit vectors."""

  config: BertConfig

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Embeds a batch.

    Args:
      tokens: int32 [B, T].
      mask: bool [B, T], True at the tokens of the text (incl. [CLS], [SEP]);
        at least one a row.

    Returns:
      float32 [B, D] of length one.
    """
    cfg = self.config
    normal = nn.initializers.normal(0.02)
    words = self.param('words', normal, (cfg.vocab_size, cfg.width))
    places = self.param('places', normal, (cfg.positions, cfg.width))
    kind = self.param('kind', normal, (cfg.width,))
    x = words[tokens] + (places[: tokens.shape[1]] + kind[None, :])[None]
    x = nn.LayerNorm(epsilon=cfg.norm_eps, name='norm')(x)
    for index in range(cfg.layers):
      x = _Layer(cfg, name=f'layer_{index}')(x, mask)
    weight = mask[..., None].astype(jnp.float32)
    mean = (x * weight).sum(1) / weight.sum(1)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


_LAYER_NAMES = {
  'query': 'attention.self.query',
  'key': 'attention.self.key',
  'value': 'attention.self.value',
  'attention_output': 'attention.output.dense',
  'attention_norm': 'attention.output.LayerNorm',
  'mlp_in': 'intermediate.dense',
  'mlp_out': 'output.dense',
  'mlp_norm': 'output.LayerNorm',
}


def read_config(path: pathlib.Path, bf16_matmul: bool = False) -> BertConfig:
  """Reads a Hugging Face `config.json` of a BERT model.

  Args:
    path: the file.
    bf16_matmul: see `BertConfig`.

  Returns:
    The config.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it cannot be read, or the model is not the kind of BERT that
      `Bert` computes.
  """
  raw = files.read_object(path)
  for key, supported in (
    ('model_type', 'bert'),
    ('hidden_act', 'gelu'),
    ('position_embedding_type', 'absolute'),
  ):
    if raw.get(key, supported) != supported:
      raise ValueError(
        f'{path}: {key} is {raw[key]!r}, but only {supported!r} is supported. '
        'Use another encoder, or pass vectors by sid.embeddings.'
      )
  size = lambda key: hf_config.size(raw, key)
  try:
    found = BertConfig(
      vocab_size=size('vocab_size'),
      width=size('hidden_size'),
      layers=size('num_hidden_layers'),
      heads=size('num_attention_heads'),
      mlp_dim=size('intermediate_size'),
      positions=size('max_position_embeddings'),
      norm_eps=hf_config.number(raw, 'layer_norm_eps', BertConfig.norm_eps),
      bf16_matmul=bf16_matmul,
    )
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if found.width % found.heads:
    raise ValueError(
      f'{path}: hidden_size = {found.width} does not divide by '
      f'num_attention_heads = {found.heads}: fetch the model again.'
    )
  return found


def read_params(path: pathlib.Path, config: BertConfig) -> dict:
  """Reads the weights of a BERT model from a safetensors file.

  Args:
    path: the file, with Hugging Face names and PyTorch layout.
    config: the model's config.

  Returns:
    Parameters of `Bert`, as NumPy arrays.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it cannot be read, or a tensor is missing or has another shape
      or type, by name.
  """
  with tensor_files.open_one(path) as tensors:
    return _params(path, config, tensors)


def _params(path: pathlib.Path, config: BertConfig, tensors: Any) -> dict:
  known = set(tensors.keys())

  def take(name, *shape):
    found = tensors.get_slice(name) if name in known else None
    kind = found and found.get_dtype()
    if found is None or tuple(found.get_shape()) != shape:
      found = 'nothing' if found is None else tuple(found.get_shape())
      raise ValueError(
        f'{path}: {name} should have the shape {shape}, found {found}. The '
        'file does not belong to config.json: fetch both again.'
      )
    if kind not in tensor_files.TYPES:
      raise ValueError(
        f'{path}: {name} is of type {kind}, not one of {tensor_files.TYPES}: '
        'use an encoder that is not quantised.'
      )
    x = np.asarray(tensors.get_tensor(name), np.float32)
    return tensor_files.finite(x, name, path)

  def dense(name, rows, columns):
    kernel = take(f'{name}.weight', columns, rows).T
    return {'kernel': kernel, 'bias': take(f'{name}.bias', columns)}

  def norm(name):
    return {
      'scale': take(f'{name}.weight', width),
      'bias': take(f'{name}.bias', width),
    }

  width, prefix = config.width, 'embeddings'
  shapes = {
    'mlp_in': (width, config.mlp_dim),
    'mlp_out': (config.mlp_dim, width),
  }
  params = {
    'words': take(f'{prefix}.word_embeddings.weight', config.vocab_size, width),
    'places': take(
      f'{prefix}.position_embeddings.weight', config.positions, width
    ),
    # Every text is of the first kind: there are no pairs.
    'kind': take(f'{prefix}.token_type_embeddings.weight', 2, width)[0],
    'norm': norm(f'{prefix}.LayerNorm'),
  }
  for index in range(config.layers):
    params[f'layer_{index}'] = {
      name: norm(f'encoder.layer.{index}.{source}')
      if name.endswith('norm')
      else dense(
        f'encoder.layer.{index}.{source}', *shapes.get(name, (width, width))
      )
      for name, source in _LAYER_NAMES.items()
    }
  return params
