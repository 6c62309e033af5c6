"""Plackett-Luce: a ranking drawn place by place, in proportion to exp(u).

    P(order) = prod_j exp(u[order_j]) / sum_{i >= j} exp(u[order_i])

Its draw is a sort: of u plus Gumbel noise, best first. Letters: Q prompts, G
rankings, K candidates.

Reference: Plackett (1975); Luce (1959); Yellott (1977) for the sort.
"""

import jax
import jax.numpy as jnp

# Of padding: finite, so that no gradient is NaN, and below every utility.
OUT = -1e9


def draw(
  key: jax.Array, utilities: jax.Array, mask: jax.Array, num_samples: int
) -> jax.Array:
  """Draws rankings.

  Args:
    key: one for all lists.
    utilities: float [Q, K], or [Q, G, K], one list of them a ranking.
    mask: bool [Q, K], False for the padding of short lists.
    num_samples: G.

  Returns:
    int32 [Q, G, K]: the candidate on each place, padding last, in its order.
  """
  if utilities.ndim == 2:
    utilities = utilities[:, None]
  queries, _, width = utilities.shape
  noise = jax.random.gumbel(key, (queries, num_samples, width))
  return sort(utilities + noise, mask[:, None])


def sort(utilities: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns the likeliest ranking.

  Args:
    utilities: float [..., K].
    mask: bool [..., K], broadcast to the utilities.

  Returns:
    int32 [..., K]: the candidate on each place; of equal ones the first comes
    first, padding last.
  """
  keys = jnp.where(mask, utilities, -jnp.inf)
  return jnp.argsort(-keys, axis=-1, stable=True).astype(jnp.int32)


def log_probs(
  utilities: jax.Array, mask: jax.Array, order: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Scores each place of rankings, given those before it.

  Args:
    utilities: float [..., K].
    mask: bool [..., K], broadcast to the utilities.
    order: int [..., K], the candidate on each place, padding last; broadcast
      against the utilities.

  Returns:
    (log-probabilities, entropies), float32 [..., K] each: of the choice on each
    place among the candidates that are left; 0 on the places of padding.
  """
  shape = jnp.broadcast_shapes(utilities.shape, order.shape)
  mask = jnp.broadcast_to(mask, shape)
  values = jnp.where(mask, utilities, OUT).astype(jnp.float32)
  order = jnp.broadcast_to(order, shape)
  values = jnp.take_along_axis(values, order, axis=-1)
  real = jnp.take_along_axis(mask, order, axis=-1)
  # Row j: the candidates that are left at place j.
  width = shape[-1]
  left = jnp.triu(jnp.ones((width, width), bool))
  left = left.reshape((1,) * (len(shape) - 1) + left.shape)
  choices = jnp.where(left, values[..., None, :], OUT)
  logps = jax.nn.log_softmax(choices, axis=-1)
  entropy = -jnp.sum(jnp.where(left, jnp.exp(logps) * logps, 0.0), axis=-1)
  own = jnp.diagonal(logps, axis1=-2, axis2=-1)
  return jnp.where(real, own, 0.0), jnp.where(real, entropy, 0.0)
