"""Log-probabilities of tokens: one function for the sampler and the trainer."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from gr2_jax import sharding
from gr2_jax.lm import bans

# Of a token outside its allowed set: finite, so that masks can remove it.
IMPOSSIBLE = -1e9
# Bytes of float32 logits that a device computes at a time (our choice: 440
# tokens at Qwen3's vocabulary, enough for products to be limited by arithmetic,
# and more than any of the small models here has in all).
BUDGET = 2**28


def token_logps(
  logits: jax.Array,
  tokens: jax.Array,
  temperature: jax.Array | float = 1.0,
  allowed: jax.Array | None = None,
  banned: np.ndarray | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Scores tokens under tempered and possibly constrained distributions.

  Args:
    logits: float32 [..., V].
    tokens: int [...].
    temperature: positive scalar, may be traced; divides the logits.
    allowed: int [..., A], the token ids that a constrained position may take,
      -1 pads. The normaliser then runs over these ids only. A row of negative
      numbers is a free position.
    banned: bool [V], ids that no free position takes; see `bans.apply`.

  Returns:
    (log-probability, entropy of the distribution), float32 [...] each. A token
    outside its allowed set has log-probability `IMPOSSIBLE`.
  """
  logits = bans.apply(logits.astype(jnp.float32), allowed, banned) / temperature
  norm = jax.nn.logsumexp(logits, axis=-1)
  chosen = _at(logits, tokens[..., None])[..., 0]
  logps = chosen - norm
  probs = jax.nn.softmax(logits, axis=-1)
  entropy = norm - jnp.sum(probs * logits, axis=-1)
  if allowed is None:
    return logps, entropy
  present = allowed >= 0
  constrained = present.any(-1)
  scores = _at(logits, jnp.maximum(allowed, 0))
  # Where nothing is allowed all entries stay, so that no gradient is NaN.
  keep = present | ~constrained[..., None]
  scores = jnp.where(keep, scores, -jnp.inf)
  norm = jax.nn.logsumexp(scores, axis=-1)
  probs = jax.nn.softmax(scores, axis=-1)
  inner = norm - jnp.sum(probs * jnp.where(keep, scores, 0.0), axis=-1)
  legal = ((allowed == tokens[..., None]) & present).any(-1)
  inside = jnp.where(legal, chosen - norm, IMPOSSIBLE)
  return (
    jnp.where(constrained, inside, logps),
    jnp.where(constrained, inner, entropy),
  )


def token_kl(
  logits: jax.Array,
  others: jax.Array,
  temperature: jax.Array | float = 1.0,
  allowed: jax.Array | None = None,
  banned: np.ndarray | None = None,
) -> jax.Array:
  """Returns KL(p || q) between the whole distributions at each position.

  Args:
    logits: float32 [..., V], of p.
    others: float32 [..., V], of q.
    temperature: as in `token_logps`; of both.
    allowed: as in `token_logps`; of both.
    banned: as in `token_logps`; of both.

  Returns:
    float32 [...], in nats, 0 where one id alone is allowed.
  """
  both = [
    bans.apply(x.astype(jnp.float32), allowed, banned) / temperature
    for x in (logits, others)
  ]
  kl = _kl(*both)
  if allowed is None:
    return kl
  present = allowed >= 0
  constrained = present.any(-1)
  keep = present | ~constrained[..., None]
  ids = jnp.maximum(allowed, 0)
  # Finite where nothing is allowed: 0 * inf is NaN.
  inner = _kl(*(jnp.where(keep, _at(x, ids), IMPOSSIBLE) for x in both))
  return jnp.where(constrained, inner, kl)


def _at(logits: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns logits [..., V] at ids [..., A]; beyond V the last, never NaN."""
  return jnp.take_along_axis(logits, ids, axis=-1, mode='clip')


def _kl(p: jax.Array, q: jax.Array) -> jax.Array:
  p, q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
  return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


def chunked_logps(
  unembed_fn: Callable[[jax.Array, jax.Array], jax.Array],
  table: jax.Array,
  hidden: jax.Array,
  tokens: jax.Array,
  *,
  temperature: jax.Array | float = 1.0,
  allowed: jax.Array | None = None,
  chunk: int = 64,
  banned: np.ndarray | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Does `token_logps` in chunks, their logits computed again in backward.

  Args:
    unembed_fn: table and hidden states [..., D] to logits [..., V].
    table: [V, D], the parameter that `unembed_fn` reads.
    hidden: [B, ..., T, D].
    tokens: int [B, ..., T].
    temperature: as in `token_logps`.
    allowed: int [B, ..., T, A] or None.
    chunk: as in `chunked`.
    banned: as in `token_logps`.

  Returns:
    (log-probabilities, entropies), float32 [B, ..., T].
  """

  def score(table, tokens, hidden, allowed):
    logits = unembed_fn(table, hidden)
    return token_logps(logits, tokens, temperature, allowed, banned)

  vocab = table.shape[0]
  inputs = tokens, hidden, allowed
  return chunked(score, vocab, table, inputs, chunk)


def chunked(
  score: Callable[..., tuple[jax.Array, ...]],
  width: int,
  tables: Any,
  inputs: tuple[jax.Array | None, ...],
  chunk: int = 64,
) -> tuple[jax.Array, ...]:
  """Scores tokens in chunks, whose logits backward computes again.

  Where all logits are below `BUDGET` bytes on each device, a chunk is `chunk`
  places of all rows, and XLA may hold several. Else chunks have so many tokens
  that one's logits are below `BUDGET`, and one is done after the other.

  Args:
    score: of tables and inputs, cut alike; returns arrays of the tokens'
      shape.
    width: logits that `score` makes for a token, of all models together.
    tables: what `score` reads whole, a tree of arrays [V, D], split over fsdp
      on their features at most.
    inputs: its other arguments, tokens int [B, ..., T] first, then [B, ..., T,
      *] each, or None; B split over the batch axes of the mesh, if any.
    chunk: places of T handled at a time where all logits are few.

  Returns:
    What `score` returns, float32 [B, ..., T] each.
  """
  mesh = jax.sharding.get_abstract_mesh()
  parts, split = 1, 1
  if not mesh.empty:
    parts, split = sharding.batch_parts(mesh), mesh.shape['tensor']
  place_bytes = 4 * -(-width // split)
  tokens = inputs[0]
  score = jax.checkpoint(score)
  if tokens.size // parts * place_bytes > BUDGET:
    run = functools.partial(_scan_chunks, score, max(BUDGET // place_bytes, 1))
    return (run if mesh.empty else _per_device(run))(tables, inputs)
  # A loop in Python: without the cost of a scan on CPU.
  axis = tokens.ndim - 1
  pieces = []
  for start in range(0, tokens.shape[-1], chunk):
    stop = min(start + chunk, tokens.shape[-1])
    cut = functools.partial(
      jax.lax.slice_in_dim, start_index=start, limit_index=stop, axis=axis
    )
    pieces.append(score(tables, *jax.tree.map(cut, inputs)))
  return tuple(jnp.concatenate(x, -1) for x in zip(*pieces, strict=True))


def _per_device(run: Callable) -> Callable:
  """Lets each device score its own rows, with whole tables.

  The features of the tables are gathered once before the scan, and the
  gradients summed and split once after it. XLA alone does both for each chunk.
  """
  rows, features = PartitionSpec(sharding.BATCH), PartitionSpec(None, 'fsdp')

  def one(tables: Any, inputs: Any) -> tuple[jax.Array, ...]:
    return run(jax.tree.map(_whole_rows, tables), inputs)

  return jax.shard_map(
    one,
    in_specs=(features, rows),
    out_specs=rows,
    axis_names=set(sharding.BATCH),
    # Else gradients would be summed where the scan reads the tables.
    check_vma=False,
  )


def _whole_rows(table: jax.Array) -> jax.Array:
  """Gathers the features of a table's rows [V, D / fsdp].

  Each device those of its own rows, where `tensor` splits them: XLA alone would
  gather the rows before, and their gradient's.
  """
  gather = functools.partial(
    jax.lax.all_gather, axis_name='fsdp', axis=1, tiled=True
  )
  split = jax.sharding.get_abstract_mesh().shape['tensor']
  if len(table) % split:
    return gather(table)
  rows = PartitionSpec('tensor')
  return jax.shard_map(
    gather,
    in_specs=rows,
    out_specs=rows,
    axis_names={'tensor'},
    check_vma=False,
  )(table)


def _scan_chunks(
  score: Callable[..., tuple[jax.Array, ...]],
  size: int,
  tables: Any,
  inputs: tuple[jax.Array | None, ...],
) -> tuple[jax.Array, ...]:
  """Scores `size` tokens of a device's rows at a time.

  A scan, because nothing else keeps XLA from holding the logits of all chunks:
  on CPU the loop in Python held three copies of each chunk's at once.

  Args:
    score: of tables and inputs.
    size: tokens of a chunk.
    tables: what it reads whole.
    inputs: its other arguments, tokens [B, ..., T] first, then [B, ..., T, *].

  Returns:
    What `score` returns for all tokens, [B, ..., T].
  """
  shape = inputs[0].shape
  count = math.prod(shape)
  chunks = -(-count // size)
  # Chunks of one size, the last one filled up with tokens that are cut off.
  size = -(-count // chunks)
  spare = chunks * size - count

  def cut(x):
    rest = x.shape[len(shape) :]
    x = x.reshape(count, *rest)
    x = jnp.pad(x, ((0, spare), *((0, 0) for _ in rest)))
    return x.reshape(chunks, size, *rest)

  def join(x):
    return x.reshape(chunks * size)[:count].reshape(shape)

  _, scores = jax.lax.scan(
    lambda carry, xs: (carry, score(tables, *xs)),
    None,
    jax.tree.map(cut, inputs),
  )
  return jax.tree.map(join, scores)
