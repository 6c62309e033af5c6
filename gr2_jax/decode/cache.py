"""The caches of decoding: of prompts, read once, and of what follows them."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Prompts:
  """Prompts that were read.

  Attributes:
    kv: their keys and values.
    valid: bool [Q, P], the tokens of each prompt.
    lengths: int32 [Q].
    last: float32 [Q, 1, D], the state that says what follows each prompt;
      without meaning for an empty one.
  """

  kv: Any
  valid: jax.Array
  lengths: jax.Array
  last: jax.Array


def read(model: Callable, prompts: jax.Array, valid: jax.Array) -> Prompts:
  """Reads prompts.

  Args:
    model: `Decoder.apply` with its parameters.
    prompts: int32 [Q, P], padded on the right.
    valid: bool [Q, P].

  Returns:
    Their caches.
  """
  last, kv = model(prompts, valid, method='prefill')
  lengths = valid.sum(-1, dtype=jnp.int32)
  return Prompts(kv=kv, valid=valid, lengths=lengths, last=last)


def extend(
  model: Callable,
  prompts: Prompts,
  tokens: jax.Array,
  tail: Any,
  index: jax.Array | int,
) -> tuple[jax.Array, Any]:
  """Reads one more token of each member.

  Args:
    model: `Decoder.apply` with its parameters.
    prompts: what `read` returned.
    tokens: int32 [Q, G].
    tail: the cache of the tails, `index` slots filled.
    index: the slot of the tokens, may be traced.

  Returns:
    (states [Q, G, D], the cache with one more slot filled).
  """
  positions = jnp.broadcast_to(prompts.lengths[:, None] + index, tokens.shape)
  hidden, tail = model(
    tokens[..., None],
    positions[..., None],
    prompts.kv,
    prompts.valid,
    tail_kv=tail,
    index=index,
    method='extend',
  )
  return hidden[:, :, 0], tail
