"""The DAPO loss of rankings, and of the words before them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import heads, plackett_luce
from gr2_jax.rl import dapo, rankings
from gr2_jax.rl.config import RLConfig
from gr2_jax.text.answer import AnswerFormat


def make_loss(
  model: LMConfig, config: RLConfig, fmt: AnswerFormat
) -> Callable[..., tuple[jax.Array, jax.Array, dict]]:
  """Returns the DAPO loss of rankings, and of the words before them.

  Args:
    model: shape of the LM.
    config: settings.
    fmt: the answer format.

  Returns:
    `(params, rankings) -> (loss_sum, count of words and places, metrics)`;
    metrics as `objective.make_loss` has them.
  """

  def loss(params: Any, drawn: rankings.Rankings) -> tuple:
    lists, words = drawn.lists, drawn.words
    size = drawn.order.shape[1]
    values, scored = rankings.score(
      model, config, fmt, params, lists, words=words, num_samples=size
    )
    new, _ = plackett_luce.log_probs(
      values, lists.candidate_mask[:, None], drawn.order
    )
    old, mask = drawn.old_logps, drawn.mask
    if words is not None:
      new = jnp.concatenate([scored, new], axis=-1)
      old = jnp.concatenate([words.old_logps, old], axis=-1)
      mask = jnp.concatenate([words.written, mask], axis=-1)
    mask &= (drawn.weight > 0)[:, None, None]
    total, count, metrics = dapo.dapo_loss(
      new,
      old,
      drawn.advantages,
      mask,
      eps_low=config.eps_low,
      eps_high=config.eps_high,
      level=config.loss_level,
    )
    # Of no place at all they are 1: an infinite metric would end the run.
    extremes = dapo.ratio_range(new, old, mask)
    low, high = (jnp.where(mask.any(), x, 1.0) for x in extremes)
    one = jnp.ones((), jnp.float32)
    metrics |= {'ratio_min': (low, one), 'ratio_max': (high, one)}
    return config.reward_weight * total, count, metrics

  return loss


def named(kind: str, metrics: Mapping) -> dict:
  """Names the metrics of lists with explanations apart.

  Args:
    kind: `heads.DIRECT` or `heads.EXPLAINED`.
    metrics: of lists of that kind.
  """
  if kind == heads.DIRECT:
    return dict(metrics)
  return {f'{kind}/{name}': pair for name, pair in metrics.items()}


def make_joint_loss(
  model: LMConfig, config: RLConfig, fmt: AnswerFormat
) -> Callable[..., tuple[jax.Array, float, dict]]:
  """Returns the loss of lists of both kinds: a list counts as a list.

  Explanations are few, and their gradient is noisy: with updates of their own
  Adam would give them as long a step as the many lists without.

  Args:
    model: shape of the LM.
    config: settings.
    fmt: the answer format.

  Returns:
    `(params, kind -> rankings) -> (loss, 1, metrics)`: the mean of the kinds'
    token-level losses, weighted by their lists, with `named` metrics.
  """
  one = make_loss(model, config, fmt)

  def loss(params: Any, drawn: Mapping[str, rankings.Rankings]) -> tuple:
    lists = sum(len(own.weight) for own in drawn.values())
    joint, metrics = jnp.float32(0), {}
    for kind, own in drawn.items():
      total, count, found = one(params, own)
      # Of no place at all the total is 0.
      mean = total / jnp.maximum(count, 1)
      joint += len(own.weight) / lists * mean
      metrics |= named(kind, found)
    return joint, 1.0, metrics

  return loss
