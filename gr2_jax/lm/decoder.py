"""The decoder LLM: rows in training, groups that share a prompt in RL.

In training `hidden` takes rows, and `hidden_shared` groups, whose prompts are
read once. In decoding `prefill` reads each prompt once, and `extend` continues
it for G members at a time, token by token.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gr2_jax import sharding
from gr2_jax.lm import attention, kernels, tables, tails
from gr2_jax.lm.config import LMConfig
from gr2_jax.lm.context import Context, for_next_layer
from gr2_jax.lm.dropout import Dropout
from gr2_jax.lm.layers import Block, RMSNorm


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
      self.layers = block(c)
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

  def hidden_shared(
    self,
    prompts: jax.Array,
    valid: jax.Array,
    tokens: jax.Array,
    places: jax.Array | None = None,
    mask: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the final-normed states of G tails that share a prompt.

    Prompts and tails go through each layer together: its matrices are read, and
    on a mesh gathered, once.

    Args:
      prompts: int [Q, P], right-padded.
      valid: bool [Q, P], False on padding.
      tokens: int [Q, G, T], of the tails.
      places: int [Q, G, T], how far behind the prompt each token stands, below
        T; in their order by default.
      mask: bool [Q, G, T, T], which tokens of its tail each one sees; those
        up to itself by default. With `places` it makes a tail a tree.

    Returns:
      [Q, G, T + 1, D]: what follows the prompt, without meaning for an empty
      one, and what follows each token of the tail.
    """
    queries, group, length = tokens.shape
    width = prompts.shape[1]
    if places is None:
      places = jnp.arange(length)[None, None]
    after = valid.sum(-1)[:, None, None] + places
    # A row is a prompt and its tails.
    join = lambda prompt, tails: jnp.concatenate(
      [
        jnp.broadcast_to(prompt, prompts.shape),
        jnp.broadcast_to(tails, tokens.shape).reshape(queries, group * length),
      ],
      axis=1,
    )
    angles = self._angles(join(jnp.arange(width)[None], after), width + length)
    context = self._reading(valid, angles).replace(
      prompt_valid=valid, tails=(group, length), tail_mask=mask
    )
    x, _ = self._run(join(prompts, tokens), None, context)
    first = jnp.broadcast_to(x[:, None, :1], (queries, group, 1, x.shape[-1]))
    rest = x[:, 1:].reshape(*tokens.shape, x.shape[-1])
    return jnp.concatenate([first, rest], axis=2)

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
    angles = self._angles(None, tokens.shape[1])
    context = self._reading(valid, angles).replace(keep=True)
    return self._run(tokens, None, context)

  def _reading(self, valid: jax.Array, angles: attention.KV) -> Context:
    """Returns the context of reading prompts, valid [Q, P], to their ends."""
    mask = segments = None
    if self.config.attention == 'splash':
      # Padding sees itself alone: what it computes is never read.
      segments = valid.astype(jnp.int32)
    else:
      mask = attention.causal_mask(valid.shape[1], None) & valid[:, None, :]
    last = jnp.maximum(valid.sum(-1, dtype=jnp.int32) - 1, 0)
    return Context(angles, mask, segments, last=last)

  def extend(
    self,
    tokens: jax.Array,
    positions: jax.Array,
    prompt_kv: Any,
    prompt_valid: jax.Array,
    tail_kv: Any,
    *,
    index: jax.Array | int,
  ) -> tuple[jax.Array, Any]:
    """Continues each prompt with G tails.

    Args:
      tokens: int [Q, G, T].
      positions: int [Q, G, T]: prompt length + place in the tail.
      prompt_kv: from `prefill`.
      prompt_valid: bool [Q, P].
      tail_kv: the cache of `tails.empty`, of S slots.
      index: the slot of the first of the T tokens (may be traced); slots up to
        index + t are attended.

    Returns:
      (states [Q, G, T, D], the cache with T more slots filled).
    """
    slots = tails.slots(tail_kv)
    mask = attention.tail_mask(tokens.shape[2], slots, index)
    angles = self._angles(positions, prompt_valid.shape[1] + slots)
    context = Context(angles, mask, prompt_valid=prompt_valid, index=index)
    if self.config.scan:
      kv = {'prompt': prompt_kv, 'tail': tail_kv}
    else:
      kv = [
        {'prompt': p, 'tail': t}
        for p, t in zip(prompt_kv, tail_kv, strict=True)
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
      x, new = self._scan(x, kv, whole)
      x = for_next_layer(x, context)
    else:
      new = []
      for i, layer in enumerate(self.layers):
        own = context if i == self.config.layers - 1 else whole
        x, layer_kv = layer(x, None if kv is None else kv[i], own)
        new.append(layer_kv)
      new = tuple(new)
    return self.final_norm(x), new

  def _scan(
    self, x: jax.Array, kv: Any, context: Context
  ) -> tuple[jax.Array, Any]:
    """Runs the layers in a loop that carries the tail cache of all of them.

    Each layer writes its slots in place. As input and output of the loop, a
    layer's whole cache would be copied for every token.
    """
    kv = kv or {'prompt': None, 'tail': None}

    def layer(block: Block, carry: Any, prompt: Any, number: jax.Array) -> Any:
      x, tail = carry
      own = None if tail is None else {'prompt': prompt, 'tail': tail}
      x, new = block(x, own, context.replace(layer=number))
      return ((x, None), new) if tail is None else ((x, new), None)

    run = nn.scan(
      layer,
      variable_axes={'params': 0},
      split_rngs={'params': True, 'dropout': True},
      length=self.config.layers,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    numbers = jnp.arange(self.config.layers)
    carry = x, kv['tail']
    (x, tail), new = run(self.layers, carry, kv['prompt'], numbers)
    return x, new if tail is None else tail


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
