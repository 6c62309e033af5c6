"""Log-probabilities of tokens: one function for the sampler and the trainer."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gr2_jax import sharding

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
) -> tuple[jax.Array, jax.Array]:
  """Scores tokens under tempered and possibly constrained distributions.

  Args:
    logits: float32 [..., V].
    tokens: int [...].
    temperature: positive scalar, may be traced; divides the logits.
    allowed: int [..., A], the token ids that a constrained position may take,
      -1 pads. The normaliser then runs over these ids only. A row of all -1 is
      an unconstrained position.

  Returns:
    (log-probability, entropy of the distribution), float32 [...] each. A token
    outside its allowed set has log-probability `IMPOSSIBLE`.
  """
  logits = logits.astype(jnp.float32) / temperature
  norm = jax.nn.logsumexp(logits, axis=-1)
  chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
  logps = chosen - norm
  probs = jax.nn.softmax(logits, axis=-1)
  entropy = norm - jnp.sum(probs * logits, axis=-1)
  if allowed is None:
    return logps, entropy
  present = allowed >= 0
  constrained = present.any(-1)
  scores = jnp.take_along_axis(logits, jnp.maximum(allowed, 0), axis=-1)
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


def chunked_logps(
  unembed_fn: Callable[[jax.Array], jax.Array],
  hidden: jax.Array,
  tokens: jax.Array,
  temperature: jax.Array | float = 1.0,
  allowed: jax.Array | None = None,
  chunk: int = 64,
) -> tuple[jax.Array, jax.Array]:
  """Does `token_logps` in chunks, their logits computed again in backward.

  Where all logits are below `BUDGET` bytes on each device, a chunk is `chunk`
  places of all rows, and XLA may hold several. Else chunks have so many tokens
  that one's logits are below `BUDGET`, and one is done after the other.

  Args:
    unembed_fn: hidden states [..., D] to logits [..., V].
    hidden: [B, ..., T, D], B split over the batch axes of the mesh, if any.
    tokens: int [B, ..., T].
    temperature: as in `token_logps`.
    allowed: int [B, ..., T, A] or None.
    chunk: places of T handled at a time where all logits are few.

  Returns:
    (log-probabilities, entropies), float32 [B, ..., T].
  """
  mesh = jax.sharding.get_abstract_mesh()
  parts, split = 1, 1
  if not mesh.empty:
    parts, split = sharding.batch_parts(mesh), mesh.shape['tensor']
  vocab = jax.eval_shape(unembed_fn, hidden).shape[-1]
  place_bytes = 4 * -(-vocab // split)

  @jax.checkpoint
  def score(hidden, tokens, allowed):
    return token_logps(unembed_fn(hidden), tokens, temperature, allowed)

  if tokens.size // parts * place_bytes > BUDGET:
    size = max(BUDGET // place_bytes, 1)
    return _scan_chunks(score, (hidden, tokens, allowed), parts, size)
  # A loop in Python: without the cost of a scan on CPU.
  axis = tokens.ndim - 1
  pieces = []
  for start in range(0, tokens.shape[-1], chunk):
    stop = min(start + chunk, tokens.shape[-1])

    def cut(x, start=start, stop=stop):
      return jax.lax.slice_in_dim(x, start, stop, axis=axis)

    part = None if allowed is None else cut(allowed)
    pieces.append(score(cut(hidden), cut(tokens), part))
  logps, entropies = zip(*pieces, strict=True)
  return jnp.concatenate(logps, -1), jnp.concatenate(entropies, -1)


def _scan_chunks(
  score: Callable[..., tuple[jax.Array, jax.Array]],
  inputs: tuple[jax.Array, jax.Array, jax.Array | None],
  parts: int,
  size: int,
) -> tuple[jax.Array, jax.Array]:
  """Scores `size` tokens of each of the mesh's batch parts at a time.

  A scan, because nothing else keeps XLA from holding the logits of all chunks:
  on CPU the loop in Python held three copies of each chunk's at once.

  Args:
    score: of hidden states, tokens and allowed ids.
    inputs: its arguments, [B, ..., T, *].
    parts: into how many parts B is split over devices.
    size: tokens of a chunk on one device.

  Returns:
    What `score` returns for all tokens, [B, ..., T].
  """
  shape = inputs[1].shape
  count = math.prod(shape) // parts
  chunks = -(-count // size)
  # Chunks of one size, the last one filled up with tokens that are cut off.
  size = -(-count // chunks)
  spare = chunks * size - count

  def cut(x):
    # Tokens of one device stay there: its part of B comes first.
    rest = x.shape[len(shape) :]
    x = x.reshape(parts, count, *rest)
    x = jnp.pad(x, ((0, 0), (0, spare), *((0, 0) for _ in rest)))
    return jnp.moveaxis(x.reshape(parts, chunks, size, *rest), 1, 0)

  def join(x):
    x = jnp.moveaxis(x, 0, 1).reshape(parts, chunks * size)
    return x[:, :count].reshape(shape)

  _, scores = jax.lax.scan(
    lambda carry, xs: (carry, score(*xs)), None, jax.tree.map(cut, inputs)
  )
  return jax.tree.map(join, scores)
