"""Log-probabilities of tokens: one function for the sampler and the trainer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Of a token outside its allowed set: finite, so that masks can remove it.
IMPOSSIBLE = -1e9


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
  """Does `token_logps` without holding all logits at once.

  Args:
    unembed_fn: hidden states [..., D] to logits [..., V].
    hidden: [..., T, D].
    tokens: int [..., T].
    temperature: as in `token_logps`.
    allowed: int [..., T, A] or None.
    chunk: places of T handled at a time; the logits of a chunk are computed
      again in the backward pass.

  Returns:
    (log-probabilities, entropies), float32 [..., T].
  """

  @jax.checkpoint
  def score(hidden, tokens, allowed):
    return token_logps(unembed_fn(hidden), tokens, temperature, allowed)

  # A loop in Python: XLA runs the chunks in order and reuses their buffers,
  # without the cost of a scan on CPU.
  axis = tokens.ndim - 1
  parts = []
  for start in range(0, tokens.shape[-1], chunk):
    stop = min(start + chunk, tokens.shape[-1])

    def cut(x, start=start, stop=stop):
      return jax.lax.slice_in_dim(x, start, stop, axis=axis)

    part = None if allowed is None else cut(allowed)
    parts.append(score(cut(hidden), cut(tokens), part))
  logps, entropies = zip(*parts, strict=True)
  return jnp.concatenate(logps, -1), jnp.concatenate(entropies, -1)
