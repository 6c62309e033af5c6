"""Advantages relative to the other answers to the same prompt."""

from typing import Literal

import jax
import jax.numpy as jnp

EPSILON = 1e-6  # Our choice; rewards are multiples of 1 / K.


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
    return centred / (rewards.std(axis=1, keepdims=True) + EPSILON)
  raise ValueError(f"norm={norm!r} is unknown: choose 'std' or 'none'.")
