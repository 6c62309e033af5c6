"""Ids that the free positions of an answer may not take."""

import jax
import jax.numpy as jnp
import numpy as np

# exp() of it is exactly 0 in float32 at temperatures up to about 90, and it is
# finite, so that no gradient is NaN.
BANNED_LOGIT = -1e4


def apply(
  logits: jax.Array, allowed: jax.Array | None, banned: np.ndarray | None
) -> jax.Array:
  """Takes ids out of the distributions of free positions.

  Args:
    logits: float32 [..., V].
    allowed: int [..., A] as in `token_logps`, or None: all positions are free.
      A free one that begins with `-2 - id` may not take `id` either.
    banned: bool [V], what no free position takes; None leaves all as they are.

  Returns:
    float32 [..., V], what is taken out at `BANNED_LOGIT`; constrained positions
    as they were, whose ids may be among the banned ones.
  """
  if banned is None:
    return logits
  size = logits.shape[-1]
  axes = (1,) * (logits.ndim - 1)
  out = jnp.asarray(banned).reshape((*axes, size))
  if allowed is not None:
    ids = jax.lax.broadcasted_iota(jnp.int32, (*axes, size), logits.ndim - 1)
    out |= ids == -2 - allowed[..., :1]
    out &= (allowed < 0).all(-1, keepdims=True)
  return jnp.where(out, jnp.float32(BANNED_LOGIT), logits)
