"""The SASRec network: a causal transformer over a user's items.

Kang and McAuley, "Self-Attentive Sequential Recommendation" (2018), with two
changes that later work found to matter: full cross-entropy over the catalogue
instead of one sampled negative (Klenitskiy and Vasilev, 2023), and norms before
the layers instead of after them.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.lm import attention, dropout

# Rows of the item table are padded to a multiple of this, so that the table
# splits over the mesh's tensor axis whatever the size of the catalogue.
_ROWS = 64
_MASKED = -1e9
# Places whose logits are made at a time; 128 to 256 were the fastest on CPU.
_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """The shape of the network; all are our choice.

  Attributes:
    num_items: I.
    width: D.
    layers: number of blocks.
    heads: N, divides D.
    mlp_dim: F.
    max_length: items of a history that count, and rows of the position table.
    dropout: share of activations dropped in training, after the embedding and
      in each layer.
  """

  num_items: int
  width: int = 64
  layers: int = 2
  heads: int = 2
  mlp_dim: int = 256
  max_length: int = 50
  dropout: float = 0.5

  @property
  def rows(self) -> int:
    """Rows of the item table: I, padded."""
    return padding.round_up(self.num_items, _ROWS)


def _kernel(axes: tuple[str, str]) -> Any:
  return nn.with_logical_partitioning(nn.initializers.xavier_uniform(), axes)


def _table(axes: tuple[str, str]) -> Any:
  return nn.with_logical_partitioning(nn.initializers.normal(0.02), axes)


def _dense(features: int, axes: tuple[str, str], name: str) -> nn.Dense:
  bias = nn.with_logical_partitioning(nn.initializers.zeros, axes[1:])
  return nn.Dense(
    features, kernel_init=_kernel(axes), bias_init=bias, name=name
  )


def _norm(name: str) -> nn.LayerNorm:
  ones = nn.with_logical_partitioning(nn.initializers.ones, ('norm',))
  zeros = nn.with_logical_partitioning(nn.initializers.zeros, ('norm',))
  return nn.LayerNorm(scale_init=ones, bias_init=zeros, name=name)


class SASRec(nn.Module):
  """The network.

  Attributes:
    config: its shape.
  """

  config: NetworkConfig

  @nn.compact
  def __call__(
    self,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
  ) -> jax.Array:
    """Encodes histories; with an RNG 'dropout', drops activations.

    Args:
      tokens: int [B, T], item indices; rows may hold several histories.
      positions: int [B, T], place in the history, below `max_length`.
      segments: int [B, T], which history; items attend within theirs only.

    Returns:
      float32 [B, T, D]: multiplied with the item table, the logits of the item
      that follows each place.
    """
    c = self.config
    table = self.param('items', _table(('vocab', 'table')), (c.rows, c.width))
    places = self.param(
      'positions', _table(('length', 'table')), (c.max_length, c.width)
    )
    x = table[tokens] * c.width**0.5 + places[positions]
    drop = dropout.Dropout(c.dropout)
    x = sharding.constrain(drop(x), 'batch', 'length', 'activation')
    mask = attention.causal_mask(tokens.shape[1], segments)
    for i in range(c.layers):
      x = x + drop(self._attend(_norm(f'attention_norm_{i}')(x), mask, i))
      x = x + drop(self._feed(_norm(f'mlp_norm_{i}')(x), i))
      x = sharding.constrain(x, 'batch', 'length', 'activation')
    return _norm('final_norm')(x)

  def _attend(self, x: jax.Array, mask: jax.Array, i: int) -> jax.Array:
    c = self.config
    q, k, v = (
      _dense(c.width, ('embed', 'heads'), f'{name}_{i}')(x).reshape(
        *x.shape[:2], c.heads, -1
      )
      for name in ('query', 'key', 'value')
    )
    q = q * (c.width // c.heads) ** -0.5
    out = attention.attend(q, k, v, mask, bf16=False).reshape(x.shape)
    return _dense(c.width, ('heads', 'embed'), f'out_{i}')(out)

  def _feed(self, x: jax.Array, i: int) -> jax.Array:
    c = self.config
    hidden = nn.gelu(_dense(c.mlp_dim, ('embed', 'mlp'), f'up_{i}')(x))
    return _dense(c.width, ('mlp', 'embed'), f'down_{i}')(hidden)


def logits(config: NetworkConfig, params: Any, hidden: jax.Array) -> jax.Array:
  """Scores every row of the item table.

  Args:
    config: the shape.
    params: of `SASRec`.
    hidden: float32 [N, D].

  Returns:
    float32 [N, rows]; the rows that pad the table are masked.
  """
  return _logits(config.num_items, hidden, params['items'])


def _logits(num_items: int, hidden: jax.Array, table: jax.Array) -> jax.Array:
  real = jnp.arange(table.shape[0]) < num_items
  return jnp.where(real[None, :], jnp.dot(hidden, table.T), _MASKED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def log_normaliser(
  num_items: int, hidden: jax.Array, table: jax.Array, weights: jax.Array
) -> jax.Array:
  """Sums the weighted log-sum-exp of the logits over all places.

  The logits are made a chunk of places at a time, and the gradients together
  with them: [N, I] never exists, which is almost twice as fast on CPU and fits
  any catalogue.

  Args:
    num_items: I.
    hidden: float32 [N, D].
    table: float32 [rows, D].
    weights: float32 [N]; no gradient flows into them.

  Returns:
    float32 scalar, the sum over n of weights[n] logsumexp(logits[n]).
  """
  return _normaliser_forward(num_items, hidden, table, weights)[0]


def _normaliser_forward(num_items, hidden, table, weights):
  chunks = max(1, len(weights) // _CHUNK)
  while len(weights) % chunks:
    chunks -= 1

  # A chunk takes every `chunks`-th place, so that it has a share of each
  # device's places.
  def split(x):
    return x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1)

  def body(carry, chunk):
    total, table_grad = carry
    hidden, weights = chunk
    values = _logits(num_items, hidden, table)
    peak = values.max(axis=-1, keepdims=True)
    values = jnp.exp(values - peak)
    norm = values.sum(axis=-1, keepdims=True)
    total += jnp.sum(weights * (peak + jnp.log(norm))[:, 0])
    scale = weights[:, None] / norm
    table_grad += jnp.dot(values.T, hidden * scale)
    return (total, table_grad), jnp.dot(values, table) * scale

  start = (jnp.zeros(()), jnp.zeros_like(table))
  (total, table_grad), hidden_grad = jax.lax.scan(
    body, start, (split(hidden), split(weights))
  )
  hidden_grad = hidden_grad.swapaxes(0, 1).reshape(hidden.shape)
  return total, (hidden_grad, table_grad)


def _normaliser_backward(num_items, grads, g):
  del num_items
  hidden_grad, table_grad = grads
  return hidden_grad * g, table_grad * g, None


log_normaliser.defvjp(_normaliser_forward, _normaliser_backward)


def loss(
  config: NetworkConfig, params: Any, batch: Any
) -> tuple[jax.Array, jax.Array, dict]:
  """Full cross-entropy of the next item at every place that has one.

  Args:
    config: the shape.
    params: of `SASRec`.
    batch: 'tokens', 'positions', 'segments', 'weights' [B, T] as packed by
      `gr2_jax.data.pipeline`, and 'seed' uint32 [B] of the dropout.

  Returns:
    (sum of the losses, their number, {'loss': (sum, number)}).
  """
  hidden = SASRec(config).apply(
    {'params': params},
    batch['tokens'],
    batch['positions'],
    batch['segments'],
    rngs={'dropout': jax.random.key(batch['seed'][0])},
  )
  # The last place of a row predicts nothing: its weight becomes 0.
  hidden = hidden.reshape(-1, config.width)
  targets = jnp.roll(batch['tokens'], -1, axis=1).reshape(-1)
  weights = jnp.asarray(batch['weights']).at[:, 0].set(0.0)
  weights = jnp.roll(weights, -1, axis=1).reshape(-1)
  table = params['items']
  normaliser = log_normaliser(config.num_items, hidden, table, weights)
  chosen = jnp.sum(jnp.sum(hidden * table[targets], axis=-1) * weights)
  total = normaliser - chosen
  count = jnp.sum(weights)
  return total, count, {'loss': (total, count)}
