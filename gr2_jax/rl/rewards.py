"""Rewards of a re-ranked list with one positive (GR2.md, stage 3).

Ranks are 1-based, as in the paper. All functions are element-wise over arrays
that broadcast: `[Q, 1]` ranks before, `[Q, G]` ranks after.
"""

import jax
import jax.numpy as jnp

INVALID = -1.0  # An answer that is no permutation [N]; below any rank reward.


def _gain(
  rank_before: jax.Array,
  rank_after: jax.Array,
  num_candidates: jax.Array | int,
) -> jax.Array:
  return (rank_before - rank_after) / num_candidates


def rank_promotion(
  rank_before: jax.Array,
  rank_after: jax.Array,
  valid: jax.Array,
  num_candidates: jax.Array | int,
  alpha: float,
) -> jax.Array:
  """Returns R_rank + alpha R_fmt, whatever the rank did.

  With alpha = 0 this is the rank reward, on which groups are filtered. With
  alpha > 0 it pays alpha for copying the input: `conditional` does not.

  Args:
    rank_before: rank of the true item in the pre-ranked list, 1-based.
    rank_after: its rank in the answer, 1-based; unread where not valid.
    valid: bool, the answer parses and is a permutation (R_fmt).
    num_candidates: K, or the length of each list.
    alpha: weight of the format reward; 0.2 [N].

  Returns:
    float32 rewards of the broadcast shape; -1 where not valid [N].

  Reference: GR2 (arXiv 2602.07774), R_rank = (rank in D - rank in output) / K.
  """
  gain = _gain(rank_before, rank_after, num_candidates)
  return jnp.where(valid, gain + alpha, INVALID).astype(jnp.float32)


def conditional(
  rank_before: jax.Array,
  rank_after: jax.Array,
  valid: jax.Array,
  num_candidates: jax.Array | int,
  alpha: float,
) -> jax.Array:
  """Returns R_rank, plus alpha R_fmt only where the order deserves it.

  The format is paid if the true item rose, or if it was first and stays first;
  so copying the input order earns nothing unless it was right.

  Args:
    rank_before: rank of the true item in the pre-ranked list, 1-based.
    rank_after: its rank in the answer, 1-based; unread where not valid.
    valid: bool, the answer parses and is a permutation (R_fmt).
    num_candidates: K, or the length of each list.
    alpha: weight of the format reward; 0.2 [N].

  Returns:
    float32 rewards of the broadcast shape; -1 where not valid [N].

  Reference: GR2 (arXiv 2602.07774), the conditional verifiable reward.
  """
  gain = _gain(rank_before, rank_after, num_candidates)
  kept = (rank_before == 1) & (rank_after == 1)
  reward = gain + jnp.where((gain > 0) | kept, alpha, 0.0)
  return jnp.where(valid, reward, INVALID).astype(jnp.float32)


def overlong(lengths: jax.Array, max_new_tokens: int, buffer: int) -> jax.Array:
  """Returns the soft overlong penalty, added to the reward.

  Args:
    lengths: int, generated tokens of each answer, EOS included; never
      characters, never the padding.
    max_new_tokens: the longest answer that the sampler can write.
    buffer: the penalty grows linearly over the last `buffer` tokens.

  Returns:
    float32: 0 up to max_new_tokens - buffer, -1 at max_new_tokens.

  Raises:
    ValueError: a buffer that is not inside (0, max_new_tokens).

  Reference: DAPO (arXiv 2503.14476), equation 13.
  """
  if not 0 < buffer < max_new_tokens:
    raise ValueError(
      f'overlong_buffer={buffer} must be above 0 and below '
      f'max_new_tokens={max_new_tokens}.'
    )
  over = lengths - (max_new_tokens - buffer)
  return -jnp.clip(over / buffer, 0.0, 1.0).astype(jnp.float32)
