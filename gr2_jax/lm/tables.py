"""The token tables [V, D]: tokens looked up, and states projected to logits."""

from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax import sharding
from gr2_jax.lm import dots
from gr2_jax.lm.config import LMConfig


def look_up(table: jax.Array, tokens: jax.Array) -> jax.Array:
  """Looks tokens up.

  Where the table is split on its features, each device looks up its features of
  the rows of all of them; then rows and features change places. Left alone, XLA
  would rebuild the table on every device.

  Args:
    table: float [V, D].
    tokens: int [B, ...], split over the batch axes of the mesh, if any. Loaders
      refuse ids beyond the table (`foreign.check_rows`); one that came through
      is looked up at the table's end, not as NaN.

  Returns:
    float32 [B, ..., D].
  """
  inner = (None,) * (tokens.ndim - 1)
  tokens = sharding.constrain(tokens, 'rows', *inner)
  x = jnp.take(table, tokens, axis=0, mode='clip').astype(jnp.float32)
  x = sharding.constrain(x, 'rows', *inner, 'table')
  return sharding.constrain(x, 'batch', *inner, 'activation')


def output(config: LMConfig, params: Any) -> jax.Array:
  """Returns the table that projects states to logits."""
  return params['embedding' if config.tie_embeddings else 'output']


def project(config: LMConfig, rows: jax.Array, hidden: jax.Array) -> jax.Array:
  """Projects states to the logits of some tokens.

  Args:
    config: says the type of the operands.
    rows: float [N, D], of the table.
    hidden: [..., D].

  Returns:
    float32 [..., N].
  """
  letters = 'abcxyz'[: hidden.ndim - 1]
  spec = f'{letters}d,vd->{letters}v'
  return dots.einsum(spec, hidden, rows, config.bf16_matmul)


def unembed(config: LMConfig, table: jax.Array, hidden: jax.Array) -> jax.Array:
  """Projects states to logits, split over the mesh like the vocabulary.

  Args:
    config: says the type of the operands.
    table: float [V, D].
    hidden: [..., D].

  Returns:
    float32 [..., V].
  """
  logits = project(config, table, hidden)
  if hidden.ndim in (3, 4):
    middle = ('group', 'length')[4 - hidden.ndim :]
    logits = sharding.constrain(logits, 'batch', *middle, 'vocab')
  return logits
