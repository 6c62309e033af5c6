"""Rewards of a re-ranked list: one positive, or graded ones (GR2, stage 3).

One positive: `rank_promotion` and `conditional`, element-wise over ranks that
broadcast, `[Q, 1]` before and `[Q, G]` after; ranks are 1-based, as in the
paper. Several positives: `auc` and `ndcg` over grades `[Q, 1, K]` and 0-based
places `[Q, G, K]`, put together by `graded`. `score` takes the one that the
config asks for.

One rule for all of them: an answer that is no permutation is rewarded `invalid`
(`RLConfig.invalid`), -1 [N] or 0. GR2-T says of it only that it "earns no rank
reward", which both keep. -1 stands below every permutation. 0 is R_rank and
R_fmt of nothing; a promotion that lowers the true item is paid less than that.
"""

import jax
import jax.numpy as jnp

from gr2_jax.rl.config import RLConfig


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
  *,
  alpha: float,
  invalid: float,
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
    invalid: reward of an answer that is not valid.

  Returns:
    float32 rewards of the broadcast shape.

  Reference: GR2 (arXiv 2602.07774), R_rank = (rank in D - rank in output) / K.
  """
  gain = _gain(rank_before, rank_after, num_candidates)
  return jnp.where(valid, gain + alpha, invalid).astype(jnp.float32)


def conditional(
  rank_before: jax.Array,
  rank_after: jax.Array,
  valid: jax.Array,
  num_candidates: jax.Array | int,
  *,
  alpha: float,
  invalid: float,
) -> jax.Array:
  """Returns R_rank, plus alpha R_fmt only where the order deserves it.

  The format is paid if the true item rose, or if it was first and stays first;
  so copying the input order earns nothing unless it was right.

  That holds among valid answers. Let v be the chance that an answer is valid, g
  the mean R_rank of valid answers that reorder, p_first the share of lists in
  which the true item is first, p_rise that in which reordering earns alpha.
  Then
    E[R | copy]    = v_copy alpha p_first + (1 - v_copy) invalid,
    E[R | reorder] = v_reorder (g + alpha p_rise) + (1 - v_reorder) invalid,
  and reordering is favoured with invalid = -1 only where
    v_reorder / v_copy > (1 + alpha p_first) / (1 + g + alpha p_rise),
  with 0 where v_reorder (g + alpha p_rise) > v_copy alpha p_first. The first
  bound is near 1, since what is weighed is validity; the second is small. With
  `rank_promotion` both shares are 1. Exact for advantages that are centred
  alone, and with -1 for groups that are filtered, too: what has the same rank
  reward there has the same reward. With 0 the filter helps further: groups that
  differ in validity alone teach nothing (`groups.has_variance`). In exchange an
  order that lowers the true item is worse than no order (our derivation, held
  by tests/rl/test_bandit.py).

  Args:
    rank_before: rank of the true item in the pre-ranked list, 1-based.
    rank_after: its rank in the answer, 1-based; unread where not valid.
    valid: bool, the answer parses and is a permutation (R_fmt).
    num_candidates: K, or the length of each list.
    alpha: weight of the format reward; 0.2 [N].
    invalid: reward of an answer that is not valid.

  Returns:
    float32 rewards of the broadcast shape.

  Reference: GR2 (arXiv 2602.07774), the conditional verifiable reward.
  """
  gain = _gain(rank_before, rank_after, num_candidates)
  kept = (rank_before == 1) & (rank_after == 1)
  reward = gain + jnp.where((gain > 0) | kept, alpha, 0.0)
  return jnp.where(valid, reward, invalid).astype(jnp.float32)


def auc(grades: jax.Array, places: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns R_auc: the share of (positive, negative) pairs in the right order.

  Positive is what has a grade above 0; pairs of two positives do not count,
  whatever their grades. Counted without pairs: of the places of P positives
  what exceeds 0 + 1 + .. + (P - 1) are the negatives above them (Mann-Whitney).

  Args:
    grades: int [.., K], in pre-rank order.
    places: int [.., K], 0-based place of each candidate in a permutation; the
      result is unread where the answer is none.
    mask: bool [.., K], False for the padding of short lists.

  Returns:
    float32 of the broadcast shape without K, in 0..1; 0 for lists without a
    positive or without a negative, which `data.slates` drops.

  Reference: GR2-T (arXiv 2606.31984), R_auc.
  """
  positive = (grades > 0) & mask
  positives = positive.sum(-1)
  pairs = positives * (mask & ~positive).sum(-1)
  inverted = jnp.where(positive, places, 0).sum(-1)
  inverted -= positives * (positives - 1) // 2
  share = 1.0 - inverted / jnp.maximum(pairs, 1)
  return jnp.where(pairs > 0, share, 0.0).astype(jnp.float32)


def ndcg(grades: jax.Array, places: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns R_ndcg: NDCG over the whole list with gains 2^g - 1.

  Args:
    grades: int [.., K], in pre-rank order; g in {0, 1, 2} [P], here 0..20.
    places: int [.., K], 0-based place of each candidate in a permutation; the
      result is unread where the answer is none.
    mask: bool [.., K], False for the padding of short lists.

  Returns:
    float32 of the broadcast shape without K, in 0..1; 0 for lists without a
    positive.

  Reference: GR2-T (arXiv 2606.31984), R_ndcg.
  """
  gains = jnp.where(mask, jnp.left_shift(1, grades) - 1, 0)
  order = jnp.arange(gains.shape[-1]).reshape((1,) * (gains.ndim - 1) + (-1,))
  best = jnp.sort(gains, axis=-1, descending=True) / jnp.log2(2.0 + order)
  found = (gains / jnp.log2(2.0 + places)).sum(-1)
  best = best.sum(-1)
  return (found / jnp.where(best > 0, best, 1.0)).astype(jnp.float32)


def copies_a_flaw(
  grades: jax.Array, identity: jax.Array, mask: jax.Array
) -> jax.Array:
  """Returns which answers repeat a pre-rank order that was not right.

  Args:
    grades: int [.., 1, K], in pre-rank order.
    identity: bool [.., G], the answer is valid and keeps that order.
    mask: bool [.., 1, K], False for the padding of short lists.

  Returns:
    bool [.., G]: the identity, while R_auc(identity) < 1. The order among
    positives does not matter here, even where R_ndcg is paid [P].

  Reference: GR2-T (arXiv 2606.31984), the identity rule.
  """
  places = jnp.arange(grades.shape[-1])
  places = jnp.broadcast_to(places, grades.shape)
  return identity & (auc(grades, places, mask) < 1.0)


def graded(
  rank_reward: jax.Array,
  copied: jax.Array,
  valid: jax.Array,
  alpha: float,
  invalid: float,
) -> jax.Array:
  """Returns R_rank + alpha R_fmt, but alpha R_fmt alone for a copied flaw.

  With alpha = 0 and nothing copied this is the rank reward, on which groups
  are filtered; with nothing copied it is the unconditional variant.

  Args:
    rank_reward: R_rank, `auc` or `ndcg`; unread where not valid.
    copied: bool, from `copies_a_flaw`, or False.
    valid: bool, the answer parses and is a permutation (R_fmt).
    alpha: weight of the format reward; 0.2 [N].
    invalid: reward of an answer that is not valid.

  Returns:
    float32 rewards of the broadcast shape.

  Reference: GR2-T (arXiv 2606.31984), the total reward.
  """
  reward = jnp.where(copied, 0.0, rank_reward) + alpha
  return jnp.where(valid, reward, invalid).astype(jnp.float32)


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
  *,
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
    shape = conditional if config.conditional else rank_promotion
    rank_rewards = rank_promotion(*ranks, alpha=0.0, invalid=config.invalid)
    return rank_rewards, shape(
      *ranks, alpha=config.alpha, invalid=config.invalid
    )
  grades, mask = grades[:, None], mask[:, None]
  measure = auc if config.reward == 'auc' else ndcg
  quality = measure(grades, places, mask)
  copied = jnp.zeros_like(valid)
  if config.conditional:
    copied = copies_a_flaw(grades, identity, mask)
  rank_rewards = graded(
    quality, jnp.zeros_like(valid), valid, 0.0, config.invalid
  )
  return rank_rewards, graded(
    quality, copied, valid, config.alpha, config.invalid
  )
