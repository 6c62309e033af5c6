"""The block of the decoder: norm, attention, norm, feed-forward."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gr2_jax import sharding
from gr2_jax.lm import attention, dots, kernels, norms, tails
from gr2_jax.lm.config import LMConfig
from gr2_jax.lm.context import Context, for_next_layer, split_tails, take_place
from gr2_jax.lm.dropout import Dropout


class RMSNorm(nn.Module):
  """Scales the last axis to mean square one, times a learned weight."""

  eps: float
  axis: str = 'norm'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises x [..., D]."""
    scale = self.param(
      'scale',
      nn.with_logical_partitioning(nn.initializers.ones, (self.axis,)),
      (x.shape[-1],),
    )
    return norms.rms(x, scale, self.eps)


class Linear(nn.Module):
  """A projection [..., A] -> [..., B].

  Attributes:
    config: of the model: operand and parameter types, and LoRA.
    features: B.
    axes: logical names of the kernel's two axes.
    bias: whether a bias is added.
    scale: factor on the initial standard deviation 1 / sqrt(A) (our choice).
  """

  config: LMConfig
  features: int
  axes: tuple[str, str]
  bias: bool = False
  scale: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Projects x [..., A]."""
    c = self.config
    init = nn.initializers.variance_scaling(
      self.scale**2, 'fan_in', 'truncated_normal'
    )

    def matrix(name, init, shape, axes, dtype=jnp.float32):
      init = nn.with_logical_partitioning(init, axes)
      return self.param(name, init, shape, dtype)

    def times(x, kernel):
      letters = 'abcxyz'[: x.ndim - 1]
      return dots.einsum(f'{letters}d,df->{letters}f', x, kernel, c.bf16_matmul)

    inputs, rank = x.shape[-1], c.lora_rank
    shape = (inputs, self.features)
    out = times(x, matrix('kernel', init, shape, self.axes, c.param_dtype))
    if rank:
      down = matrix(
        'lora_a',
        nn.initializers.he_uniform(),
        (inputs, rank),
        (self.axes[0], 'lora'),
      )
      up = matrix(
        'lora_b',
        nn.initializers.zeros,
        (rank, self.features),
        ('lora', self.axes[1]),
      )
      out += c.lora_alpha / rank * times(times(x, down), up)
    if self.bias:
      bias = matrix(
        'bias', nn.initializers.zeros, (self.features,), self.axes[1:]
      )
      out += bias.reshape((1,) * (x.ndim - 1) + bias.shape)
    return out


def _named(x: jax.Array, last: str) -> jax.Array:
  middle = ('length',) if x.ndim == 3 else ('group', 'length')
  return sharding.constrain(x, 'batch', *middle, last)


class Attention(nn.Module):
  """Grouped-query attention with rotary positions and query/key norms."""

  config: LMConfig

  @nn.compact
  def __call__(
    self, x: jax.Array, kv: Any, context: Context
  ) -> tuple[jax.Array, Any]:
    """Attends; see `Block` for the arguments."""
    c = self.config

    def project(x: jax.Array, name: str, heads: int, axis: str) -> jax.Array:
      axes = ('embed', axis)
      out = Linear(c, heads * c.head_dim, axes, c.qkv_bias, name=name)(x)
      return _named(out, axis).reshape(*x.shape[:-1], heads, c.head_dim)

    asking = for_next_layer(x, context)
    q = project(asking, 'query', c.heads, 'heads')
    k = project(x, 'key', c.kv_heads, 'kv_heads')
    v = project(x, 'value', c.kv_heads, 'kv_heads')
    if c.qk_norm:
      q = RMSNorm(c.norm_eps, name='query_norm')(q)
      k = RMSNorm(c.norm_eps, name='key_norm')(k)
    angles = tuple(for_next_layer(a, context) for a in context.angles)
    q = attention.rotate(q, angles) * c.head_dim**-0.5
    k = attention.rotate(k, context.angles)
    if context.tails is not None:
      out, new = self._shared(q, k, v, context), None
    elif kv is None:
      out = self._within(q, k, v, context)
      new = self._prompt_cache(k, v) if context.keep else None
    else:
      place = context.layer, context.index
      new, own = tails.write(
        kv['tail'], self._slots(k, v), *place, c.bf16_matmul
      )
      out = attention.attend_shared(
        q,
        kv['prompt'],
        own,
        context.prompt_valid,
        context.mask,
        bf16=c.bf16_matmul,
      )
    out = _named(out.reshape(*asking.shape[:-1], -1), 'heads')
    scale = (2 * c.layers) ** -0.5
    axes = ('heads', 'embed')
    out = Linear(c, c.width, axes, c.out_bias, scale, name='out')(out)
    return out, new

  def _within(
    self, q: jax.Array, k: jax.Array, v: jax.Array, context: Context
  ) -> jax.Array:
    c, mask = self.config, context.mask
    # A kernel has nothing to save for one query a row; and when parameters are
    # made, rows have two tokens, and the result is not read.
    if (
      c.attention != 'plain'
      and context.last is None
      and not self.is_initializing()
    ):
      return kernels.attend(c, q, k, v, mask, segments=context.segments)
    if mask is None:
      mask = attention.causal_mask(k.shape[1], context.segments, context.last)
    else:
      mask = take_place(mask, context.last)
    return attention.attend(q, k, v, mask, c.bf16_matmul)

  def _shared(
    self, q: jax.Array, k: jax.Array, v: jax.Array, context: Context
  ) -> jax.Array:
    """Attends within prompts, and of tails to their prompt and themselves."""
    parts = [split_tails(x, context) for x in (q, k, v)]
    prompt, after = zip(*parts, strict=True)
    out = self._within(*prompt, context)
    q, k, v = (x.reshape(len(x), *context.tails, *x.shape[2:]) for x in after)
    mask = context.tail_mask
    if mask is None:
      length = context.tails[1]
      mask = attention.tail_mask(length, length, 0)
    rest = attention.attend_shared(
      q,
      self._prompt_cache(*prompt[1:]),
      self._slots(k, v),
      context.prompt_valid,
      mask,
      bf16=self.config.bf16_matmul,
    )
    return jnp.concatenate([out, rest.reshape(after[0].shape)], axis=1)

  def _prompt_cache(self, k: jax.Array, v: jax.Array) -> attention.KV:
    k, v = self._cached(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3))
    return tuple(sharding.constrain(x, *attention.PROMPT_AXES) for x in (k, v))

  def _cached(self, k: jax.Array, v: jax.Array) -> attention.KV:
    dtype = attention.cache_dtype(self.config)
    k = attention.to_cache(k, self.config.bf16_matmul)
    return k.astype(dtype), v.astype(dtype)

  def _slots(self, k: jax.Array, v: jax.Array) -> attention.KV:
    """Turns keys and values [Q, G, T, M, H] into slots of a tail cache."""
    return self._cached(*(x.transpose(0, 1, 3, 2, 4) for x in (k, v)))


class Mlp(nn.Module):
  """SwiGLU feed-forward."""

  config: LMConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Transforms x [..., D]."""
    c = self.config
    axes = ('embed', 'mlp')
    gate = Linear(c, c.mlp_dim, axes, c.mlp_bias, name='gate')(x)
    up = Linear(c, c.mlp_dim, axes, c.mlp_bias, name='up')(x)
    hidden = _named(jax.nn.silu(gate) * up, 'mlp')
    scale = (2 * c.layers) ** -0.5
    return Linear(c, c.width, axes[::-1], c.mlp_bias, scale, name='down')(
      hidden
    )


class Block(nn.Module):
  """One layer."""

  config: LMConfig

  @nn.compact
  def __call__(
    self, x: jax.Array, kv: Any, context: Context
  ) -> tuple[jax.Array, Any]:
    """Applies the layer.

    Args:
      x: [B, T, D] rows, or [Q, G, T, D] groups.
      kv: None without caches; {'prompt': KV, 'tail': KV} of groups, in a scan
        the tail of all layers.
      context: what all layers share.

    Returns:
      (x, of the last places only where the context says so; new keys and
      values: the prompt's or the tail's, or None).
    """
    eps, drop = self.config.norm_eps, Dropout(self.config.dropout)
    out, new = Attention(self.config, name='attention')(
      RMSNorm(eps, name='attention_norm')(x), kv, context
    )
    x = _named(for_next_layer(x, context) + drop(out), 'activation')
    out = Mlp(self.config, name='mlp')(RMSNorm(eps, name='mlp_norm')(x))
    return _named(x + drop(out), 'activation'), new
