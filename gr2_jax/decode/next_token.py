"""Draws the next token and scores it: once as trained, once as drawn."""

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.decode import categorical
from gr2_jax.decode import filters as filters_lib
from gr2_jax.lm import bans, logps


def uniform(
  key: jax.Array, step: jax.Array, shape: tuple[int, int]
) -> jax.Array:
  """Draws the numbers of a step.

  Args:
    key: one for all prompts, or [Q], one for each.
    step: int32 scalar.
    shape: (Q, G).

  Returns:
    float32 [Q, G], in [0, 1).
  """
  if not key.ndim:
    return jax.random.uniform(jax.random.fold_in(key, step), shape)
  own = lambda k: jax.random.uniform(jax.random.fold_in(k, step), shape[1:])
  return jax.vmap(own)(key)


def draw(
  uniform: jax.Array,
  logits: jax.Array,
  temperature: jax.Array,
  allowed: jax.Array,
  *,
  constrain: bool,
  filters: filters_lib.Filters | None = None,
  banned: np.ndarray | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws a token a row.

  Filters act on the vocabulary where a row is free, on its allowed ids where it
  is constrained, renormalised over them (as engines with a grammar do). So
  top_k = 1 is greedy everywhere, and answers stay permutations.

  Args:
    uniform: float32 [...], in [0, 1).
    logits: float32 [..., V], not yet divided by the temperature.
    temperature: float32 scalar, traced or not; 0 is greedy, without filters.
    allowed: int32 [..., A], the ids that a row may take, distinct, padded with
      -1; a row of negative numbers is free.
    constrain: whether a row may be constrained at all.
    filters: what stays of the distribution; None traces nothing for them.
    banned: bool [V], ids that no free row takes; see `bans.apply`.

  Returns:
    (tokens int32 [...], log-probs float32 [...] without the filters, at
    temperature 1 where it is 0, and with them).
  """
  logits = bans.apply(logits, allowed, banned)
  scale = jnp.where(temperature > 0, temperature, 1.0)

  def pick(logits, allowed):
    tokens = categorical.choose(uniform, logits, temperature)
    if not constrain:
      return tokens
    inside = categorical.choose_among(uniform, logits, temperature, allowed)
    return jnp.where((allowed < 0).all(-1), tokens, inside)

  def plain():
    tokens = pick(logits, allowed)
    scores, _ = logps.token_logps(logits, tokens, scale, allowed)
    return tokens, scores, scores

  def filtered():
    left = _keep(filters, logits, scale, allowed)
    keep = _keep_allowed if constrain else lambda *given: given[-1]
    few = keep(filters, logits, scale, allowed)
    tokens = pick(left, few)
    scores, _ = logps.token_logps(logits, tokens, scale, allowed)
    behaviour, _ = logps.token_logps(left, tokens, scale, few)
    return tokens, scores, behaviour

  if filters is None:
    return plain()
  # The whole of it branches, not the threshold alone: neutral filters then cost
  # neither a mask over the vocabulary nor a second normaliser.
  acts = filters_lib.active(filters) & (temperature > 0)
  return jax.lax.cond(acts, filtered, plain)


def _keep(
  filters: filters_lib.Filters,
  logits: jax.Array,
  scale: jax.Array,
  allowed: jax.Array,
) -> jax.Array:
  """Puts the logits [..., V] taken out of free rows at `IMPOSSIBLE`."""
  tempered = logits / scale
  least = filters_lib.threshold(filters, tempered)
  # Of a constrained row only the allowed ids count, not the vocabulary.
  free = (allowed < 0).all(-1, keepdims=True)
  least = jnp.where(free, least, -jnp.inf)
  return jnp.where(tempered >= least, logits, logps.IMPOSSIBLE)


def _keep_allowed(
  filters: filters_lib.Filters,
  logits: jax.Array,
  scale: jax.Array,
  allowed: jax.Array,
) -> jax.Array:
  """Puts the allowed ids [..., A] that the filters take out at -1."""
  present = allowed >= 0
  inside = jnp.take_along_axis(logits, jnp.maximum(allowed, 0), axis=-1) / scale
  inside = jnp.where(present, inside, -jnp.inf)
  # A free row has no id at all: any number does, its ids stay -1.
  inside = jnp.where(present.any(-1, keepdims=True), inside, 0.0)
  least = filters_lib.threshold(filters, inside)
  return jnp.where(present & (inside >= least), allowed, -1)
