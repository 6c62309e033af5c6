"""The reward that the config asks for, of answers that were read."""

import jax
import jax.numpy as jnp

from gr2_jax.rl import rewards
from gr2_jax.rl.config import RLConfig


def rank_of(target: jax.Array, places: jax.Array) -> jax.Array:
  """Returns the rank of the true item in each answer.

  Args:
    target: int32 [Q], its 0-based place among the candidates.
    places: int32 [Q, G, K], 0-based place of each candidate in the answers.

  Returns:
    int32 [Q, G], 1-based; K + 1 where the item is missing.
  """
  target = jnp.broadcast_to(target[:, None, None], (*places.shape[:2], 1))
  return jnp.take_along_axis(places, target, axis=-1)[..., 0] + 1


def score(
  config: RLConfig,
  target: jax.Array,
  grades: jax.Array,
  mask: jax.Array,
  places: jax.Array,
  valid: jax.Array,
  identity: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Rewards answers by `RLConfig.reward`, their length aside.

  Args:
    config: the settings: `reward`, `conditional`, `alpha` and `invalid`.
    target: int32 [Q], 0-based place of the true item among the candidates.
    grades: int32 [Q, K], in pre-rank order.
    mask: bool [Q, K], False for the padding of short lists.
    places: int32 [Q, G, K], 0-based place of each candidate in the answers.
    valid: bool [Q, G], the answer parses and is a permutation.
    identity: bool [Q, G], it is valid and keeps the pre-rank order.

  Returns:
    float32 [Q, G] each, `config.invalid` where not valid: R_rank alone, on
    which groups are filtered, and the shaped reward, which the advantages come
    from.
  """
  if config.reward == 'promotion':
    before, after = (target + 1)[:, None], rank_of(target, places)
    ranks = (before, after, valid, mask.sum(-1)[:, None])
    shape = (
      rewards.conditional if config.conditional else rewards.rank_promotion
    )
    rank_rewards = rewards.rank_promotion(*ranks, 0.0, config.invalid)
    return rank_rewards, shape(*ranks, config.alpha, config.invalid)
  grades, mask = grades[:, None], mask[:, None]
  measure = rewards.auc if config.reward == 'auc' else rewards.ndcg
  quality = measure(grades, places, mask)
  copied = jnp.zeros_like(valid)
  if config.conditional:
    copied = rewards.copies_a_flaw(grades, identity, mask)
  rank_rewards = rewards.graded(
    quality, jnp.zeros_like(valid), valid, 0.0, config.invalid
  )
  return rank_rewards, rewards.graded(
    quality, copied, valid, config.alpha, config.invalid
  )
