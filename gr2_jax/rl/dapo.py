"""DAPO: advantages within a group, and the objective that they weigh.

An advantage is relative to the other answers to the same prompt. The objective
is clipped higher above than below, and summed over tokens.
"""

from typing import Literal

import jax
import jax.numpy as jnp

_STD_EPSILON = 1e-6  # Our choice; rewards are multiples of 1 / K.


def group_advantage(
  rewards: jax.Array, norm: Literal['std', 'none'] = 'std'
) -> jax.Array:
  """Returns (R - mean) / std within each group.

  Args:
    rewards: float [Q, G], the G answers to each of Q prompts.
    norm: 'std' divides by the group's standard deviation (of the population,
      plus 1e-6), 'none' only subtracts the mean.

  Returns:
    float32 [Q, G]; zeros for a group without variance.

  Raises:
    ValueError: no group axis, groups of one, or an unknown norm.

  Reference: GRPO and DAPO (arXiv 2503.14476), equation 9.
  """
  rewards = jnp.asarray(rewards, jnp.float32)
  if rewards.ndim != 2 or rewards.shape[1] < 2:
    raise ValueError(
      f'rewards has shape {rewards.shape}: an advantage within the group needs '
      '[Q, G] with G >= 2. Raise rl.group_size.'
    )
  # The mean of equal numbers may miss them by a rounding, which eps blows up.
  varied = rewards.max(1, keepdims=True) > rewards.min(1, keepdims=True)
  centred = rewards - rewards.mean(axis=1, keepdims=True)
  centred = jnp.where(varied, centred, 0.0)
  if norm == 'none':
    return centred
  if norm == 'std':
    return centred / (rewards.std(axis=1, keepdims=True) + _STD_EPSILON)
  raise ValueError(f"norm={norm!r} is unknown: choose 'std' or 'none'.")


def dapo_loss(
  logps: jax.Array,
  old_logps: jax.Array,
  advantages: jax.Array,
  mask: jax.Array,
  *,
  eps_low: float = 0.2,
  eps_high: float = 0.28,
  level: Literal['token', 'sequence'] = 'token',
  weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
  """Sums the negative clipped surrogate over the generated tokens.

  The caller divides once by the global count: neither micro-batches nor devices
  change the loss. A group leaves it by a mask of False. `objective` adds KL.

  Args:
    logps: float [Q, G, T], log-probs of the tokens under the policy.
    old_logps: float [Q, G, T], the same under the policy that sampled them.
    advantages: float [Q, G], one for all tokens of an answer.
    mask: bool [Q, G, T], the generated tokens, EOS included; what stands in
      the other arrays elsewhere is never read, not even a NaN.
    eps_low: the ratio is clipped below at 1 - eps_low; 0.2 [P].
    eps_high: and above at 1 + eps_high; 0.28 [P].
    level: 'token' [P], or 'sequence', where each answer counts the same; see
      `reduce`.
    weights: float [Q, G, T], of each token's surrogate, such as
      `truncated_weights`; None for 1.

  Returns:
    loss_sum float32 [], count float32 [] (of tokens or of answers, by the
    level), and metrics as (sum, count of tokens): `clip_fraction` (tokens whose
    gradient the clip stops), `ratio`, `logp_gap` (absolute difference of the
    two log-probs). The ratio's extremes are `ratio_range`'s.

  Raises:
    ValueError: shapes that do not fit together.

  Reference: DAPO (arXiv 2503.14476), equations 8 and 12.
  """
  logps, old_logps = jnp.asarray(logps), jnp.asarray(old_logps)
  advantages = jnp.asarray(advantages, jnp.float32)
  mask = jnp.asarray(mask).astype(bool)
  _check(logps, old_logps, advantages, mask)
  log_ratio = _log_ratio(logps, old_logps, mask)
  ratio = jnp.exp(log_ratio)
  gain = advantages[:, :, None]
  clipped = jnp.clip(ratio, 1.0 - eps_low, 1.0 + eps_high)
  surrogate = jnp.minimum(ratio * gain, clipped * gain)
  if weights is not None:
    surrogate *= jax.lax.stop_gradient(weights)
  stopped = mask & (clipped * gain < ratio * gain)
  count = mask.sum(dtype=jnp.float32)
  metrics = {
    'clip_fraction': (stopped.sum(dtype=jnp.float32), count),
    'ratio': (jnp.where(mask, ratio, 0.0).sum(), count),
    'logp_gap': (jnp.abs(log_ratio).sum(), count),
  }
  total, divisor = reduce(surrogate, mask, level)
  return -total, divisor, metrics


def reduce(
  values: jax.Array, mask: jax.Array, level: Literal['token', 'sequence']
) -> tuple[jax.Array, jax.Array]:
  """Sums values of tokens such that sums of parts add up to the whole.

  Args:
    values: float [Q, G, T].
    mask: bool [Q, G, T], the tokens that count.
    level: 'token': their sum and their number (DAPO, equation 8); 'sequence':
      the sum over answers of the mean over an answer's tokens, and the number
      of answers that have any (GRPO, arXiv 2402.03300, equation 3).

  Returns:
    (sum, count), float32 scalars.

  Raises:
    ValueError: another level.
  """
  values = jnp.where(mask, values, 0.0)
  if level == 'token':
    return values.sum(), mask.sum(dtype=jnp.float32)
  if level == 'sequence':
    length = mask.sum(-1, dtype=jnp.float32)
    means = values.sum(-1) / jnp.maximum(length, 1.0)
    return means.sum(), (length > 0).sum(dtype=jnp.float32)
  raise ValueError(f"level={level!r} is unknown: choose 'token' or 'sequence'.")


def truncated_weights(
  old_logps: jax.Array,
  sampler_logps: jax.Array,
  mask: jax.Array,
  cap: float,
) -> jax.Array:
  """Returns min(pi_old / pi_sampler, cap) of each token.

  The ratio of the loss runs from the policy before the step as the trainer's
  program scores it. Where the sampler's program drew from another distribution,
  these weights correct for it, and the cap bounds their variance.

  Args:
    old_logps: float [Q, G, T], of the policy before the step, by the trainer.
    sampler_logps: float [Q, G, T], of the same policy, by the sampler.
    mask: bool [Q, G, T].
    cap: above 0.

  Returns:
    float32 [Q, G, T], 1 outside the mask; no gradient runs through them.

  Reference: truncated importance sampling (Ionides, 2008), for a sampler beside
    a trainer as in verl and TRL.
  """
  ratio = jnp.exp(_log_ratio(old_logps, sampler_logps, mask))
  return jax.lax.stop_gradient(jnp.minimum(ratio, cap))


def ratio_range(
  logps: jax.Array, old_logps: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the smallest and the largest raw ratio of the generated tokens.

  Args:
    logps: float [Q, G, T], under the policy.
    old_logps: float [Q, G, T], under the policy that sampled the tokens.
    mask: bool [Q, G, T].

  Returns:
    float32 scalars; +inf and 0 where the mask is empty, so that extremes of
    parts combine by `min` and `max`.
  """
  mask = jnp.asarray(mask).astype(bool)
  log_ratio = _log_ratio(logps, old_logps, mask)
  low = jnp.min(log_ratio, where=mask, initial=jnp.inf)
  high = jnp.max(log_ratio, where=mask, initial=-jnp.inf)
  return jnp.exp(low), jnp.exp(high)


def _log_ratio(
  logps: jax.Array, old_logps: jax.Array, mask: jax.Array
) -> jax.Array:
  # Both operands are masked: the gradient of a masked NaN would be NaN.
  new = jnp.where(mask, logps, 0.0).astype(jnp.float32)
  old = jnp.where(mask, old_logps, 0.0).astype(jnp.float32)
  return new - jax.lax.stop_gradient(old)


def _check(
  logps: jax.Array,
  old_logps: jax.Array,
  advantages: jax.Array,
  mask: jax.Array,
) -> None:
  if logps.ndim != 3 or not (logps.shape == old_logps.shape == mask.shape):
    raise ValueError(
      f'logps {logps.shape}, old_logps {old_logps.shape} and mask '
      f'{mask.shape} must share one shape [Q, G, T].'
    )
  if advantages.shape != logps.shape[:2]:
    raise ValueError(
      f'advantages {advantages.shape} must be [Q, G] = {logps.shape[:2]}.'
    )
