"""The decoder LLM: rows in training, groups that share a prompt in RL.

`prefill` reads each prompt once; `extend` continues it for G members at a
time, token by token with a tail cache (decoding) or all at once (training).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gr2_jax import sharding
from gr2_jax.lm import attention, kernels, tables
from gr2_jax.lm.config import LMConfig
from gr2_jax.lm.dropout import Dropout
from gr2_jax.lm.layers import (
  Block,
  Context,
  RMSNorm,
  cache_dtype,
  take_place,
)


class Decoder(nn.Module):
  """A causal language model over `LMConfig`."""

  config: LMConfig

  def setup(self):
    """Declares tables, layers and the final norm."""
    c = self.config
    kernels.check_platform(c)
    table = nn.with_logical_partitioning(
      nn.initializers.normal(0.02), ('vocab', 'table')
    )
    shape = (c.vocab_size, c.width)
    self.embedding = self.param('embedding', table, shape)
    if not c.tie_embeddings:
      self.output = self.param('output', table, shape)
    block = nn.remat(Block, prevent_cse=not c.scan) if c.remat else Block
    if c.scan:
      self.layers = nn.scan(
        block,
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast),
        length=c.layers,
        metadata_params={nn.PARTITION_NAME: 'layers'},
      )(c)
    else:
      self.layers = [block(c) for _ in range(c.layers)]
    self.final_norm = RMSNorm(c.norm_eps)
    self.drop = Dropout(c.dropout)

  def __call__(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
  ) -> jax.Array:
    """Scores the next token at every place.

    Args:
      tokens: int [B, T].
      positions: int [B, T], each below T; 0..T-1 by default.
      segments: int [B, T]; tokens see only their own segment.

    Returns:
      Logits, float32 [B, T, V].
    """
    return self.unembed(self.hidden(tokens, positions, segments))

  def hidden(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the final-normed states [B, T, D]; arguments of `__call__`."""
    mask = None
    if self.config.attention != 'splash':
      mask = attention.causal_mask(tokens.shape[1], segments)
      segments = None
    angles = self._angles(positions, tokens.shape[1])
    context = Context(angles, mask, segments)
    return self._run(tokens, None, context)[0]

  def prefill(
    self, tokens: jax.Array, valid: jax.Array
  ) -> tuple[jax.Array, Any]:
    """Reads prompts.

    Args:
      tokens: int [Q, P], right-padded.
      valid: bool [Q, P], False on padding.

    Returns:
      (states [Q, 1, D] that say what follows each prompt, without meaning for
      an empty one; keys and values of the prompts for `extend`).
    """
    mask = segments = None
    if self.config.attention == 'splash':
      # Padding sees itself alone: what it computes is never read.
      segments = valid.astype(jnp.int32)
    else:
      mask = attention.causal_mask(tokens.shape[1], None) & valid[:, None, :]
    angles = self._angles(None, tokens.shape[1])
    last = jnp.maximum(valid.sum(-1, dtype=jnp.int32) - 1, 0)
    context = Context(angles, mask, segments, last=last, keep=True)
    return self._run(tokens, None, context)

  def extend(
    self,
    tokens: jax.Array,
    positions: jax.Array,
    prompt_kv: Any,
    prompt_valid: jax.Array,
    tail_kv: Any = None,
    index: jax.Array | int | None = None,
  ) -> tuple[jax.Array, Any]:
    """Continues each prompt with G tails.

    Args:
      tokens: int [Q, G, T].
      positions: int [Q, G, T]: prompt length + place in the tail.
      prompt_kv: from `prefill`.
      prompt_valid: bool [Q, P].
      tail_kv: None: the T tokens are the whole tail, causal among themselves
        (differentiable). Else the cache of `init_tail`, of S slots.
      index: with a cache, the slot of the first of the T tokens (may be
        traced); slots up to index + t are attended.

    Returns:
      (states [Q, G, T, D], keys and values of the tail).

    Raises:
      ValueError: only one of `tail_kv` and `index` is given.
    """
    if (tail_kv is None) != (index is None):
      raise ValueError('Give tail_kv and index together, or neither.')
    length = tokens.shape[2]
    slots = length if tail_kv is None else tail_slots(tail_kv)
    mask = attention.tail_mask(length, slots, 0 if index is None else index)
    angles = self._angles(positions, prompt_valid.shape[1] + slots)
    context = Context(angles, mask, prompt_valid=prompt_valid, index=index)
    if self.config.scan:
      kv = {'prompt': prompt_kv, 'tail': tail_kv}
    else:
      tails = tail_kv or (None,) * self.config.layers
      kv = [
        {'prompt': p, 'tail': t} for p, t in zip(prompt_kv, tails, strict=True)
      ]
    return self._run(tokens, kv, context)

  def unembed(self, hidden: jax.Array) -> jax.Array:
    """Projects states [..., D] to logits, float32 [..., V]."""
    table = self.embedding if self.config.tie_embeddings else self.output
    return tables.unembed(self.config, table, hidden)

  def _angles(self, positions: jax.Array | None, length: int) -> attention.KV:
    c = self.config
    return attention.rotary_angles(
      positions, length, c.head_dim, c.rope_theta, c.rope_scaling
    )

  def _run(
    self, tokens: jax.Array, kv: Any, context: Context
  ) -> tuple[jax.Array, Any]:
    x = self.drop(tables.look_up(self.embedding, tokens))
    # Only the last layer may leave places out.
    whole = context.replace(last=None)
    if self.config.scan:
      x, new = self.layers(x, kv, whole)
      x = take_place(x, context.last)
    else:
      new = []
      for i, layer in enumerate(self.layers):
        own = context if i == self.config.layers - 1 else whole
        x, layer_kv = layer(x, None if kv is None else kv[i], own)
        new.append(layer_kv)
      new = tuple(new)
    return self.final_norm(x), new


def init(config: LMConfig, mesh: jax.sharding.Mesh, rules, key) -> Any:
  """Makes new parameters on the mesh.

  Args:
    config: shape of the model.
    mesh: the mesh.
    rules: TRAIN_RULES or DECODE_RULES.
    key: from `jax.random.key`.

  Returns:
    Plain dict of sharded float32 arrays.
  """
  return sharding.init(init_fn(config), mesh, rules, key)[0]


def init_fn(config: LMConfig):
  """Returns `key -> params`, with logical axes, for `sharding.init`."""
  tokens = jnp.zeros((1, 2), jnp.int32)
  return lambda key: Decoder(config).init(key, tokens)['params']


def narrow(config: LMConfig, params: Any) -> tuple[LMConfig, Any]:
  """Puts what only products read into the type in which they read it.

  For decoding, which reads every kernel for every token, and a table of its own
  for the logits: half the bytes, and no cast in the program. What is computed
  stays the same, bit for bit.

  Args:
    config: shape of the model.
    params: its parameters.

  Returns:
    (config, params), as given where products are in float32.
  """
  if not config.bf16_matmul:
    return config, params
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: (
      x.astype(jnp.bfloat16) if path[-1].key in ('kernel', 'output') else x
    ),
    params,
  )
  return dataclasses.replace(config, param_dtype='bfloat16'), params


def init_tail(config: LMConfig, queries: int, group: int, slots: int) -> Any:
  """Makes an empty tail cache of S slots for [Q, G] members."""
  shape = (queries, group, config.kv_heads, slots, config.head_dim)
  if config.scan:
    shape = (config.layers, *shape)

  def empty() -> attention.KV:
    zeros = jnp.zeros(shape, cache_dtype(config))
    return attention.to_cache(zeros, config.bf16_matmul), zeros

  return (
    empty() if config.scan else tuple(empty() for _ in range(config.layers))
  )


def tail_slots(tail_kv: Any) -> int:
  """Returns S of a tail cache."""
  _, values = jax.tree.leaves(tail_kv)[:2]
  return values.shape[-2]


def reorder_tail(tail_kv: Any, parents: jax.Array) -> Any:
  """Gives each member the tail of its parent (beam search).

  Args:
    tail_kv: a tail cache.
    parents: int [Q, G], places in 0..G-1.

  Returns:
    The cache with [q, g] taken from [q, parents[q, g]].
  """

  def take(x: jax.Array) -> jax.Array:
    axes = (1,) * (x.ndim - 5) + parents.shape + (1,) * 3
    return jnp.take_along_axis(x, parents.reshape(axes), axis=x.ndim - 4)

  return jax.tree.map(take, tail_kv)
