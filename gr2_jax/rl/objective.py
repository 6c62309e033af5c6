"""The loss of an update: each prompt is read once for its G answers."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax.decode import constrain
from gr2_jax.lm import logps as logps_lib
from gr2_jax.lm.config import LMConfig
from gr2_jax.lm.decoder import Decoder
from gr2_jax.rl import dapo
from gr2_jax.rl.config import RLConfig
from gr2_jax.rl.groups import Groups
from gr2_jax.text.answer import AnswerFormat


def score(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  params: Any,
  groups: Groups,
) -> tuple[jax.Array, jax.Array]:
  """Scores answers as the sampler did: same temperature, same constraint.

  Args:
    model: shape of the LM.
    config: temperature and constraint of the rollouts.
    fmt: the answer format.
    params: parameters of the LM.
    groups: the answers.

  Returns:
    (log-probs, entropies), float32 [Q, G, S].
  """
  apply = functools.partial(Decoder(model).apply, {'params': params})
  first, prompt_kv = apply(groups.prompt, groups.prompt_valid, method='prefill')
  lengths = groups.prompt_valid.sum(-1, dtype=jnp.int32)
  shape = groups.tokens.shape
  place = jnp.arange(shape[2] - 1)[None, None]
  positions = jnp.broadcast_to(
    lengths[:, None, None] + place, (*shape[:2], shape[2] - 1)
  )
  tail, _ = apply(
    groups.tokens[..., :-1],
    positions,
    prompt_kv,
    groups.prompt_valid,
    method='extend',
  )
  first = jnp.broadcast_to(first[:, None], (*shape[:2], 1, first.shape[-1]))
  states = jnp.concatenate([first, tail], axis=2)

  def logits_of(states: jax.Array) -> jax.Array:
    logits = apply(states, method='unembed')
    return constrain.ban(logits, fmt) if config.constrain else logits

  return logps_lib.chunked_logps(
    logits_of, states, groups.tokens, config.temperature, groups.allowed
  )


def make_loss(
  model: LMConfig, config: RLConfig, fmt: AnswerFormat
) -> Callable[[Any, Groups], tuple[jax.Array, jax.Array, dict]]:
  """Returns the DAPO loss as a function of parameters and groups.

  Args:
    model: shape of the LM.
    config: settings.
    fmt: the answer format.

  Returns:
    `(params, groups) -> (loss_sum, token_count, metrics)`; metrics are (sum,
    count), for `ratio_min` and `ratio_max` (extreme, 1). Groups of weight 0
    count for nothing. `entropy` runs over the tokens that had a choice:
    constrained answers are full of forced ones.
  """

  def loss(params: Any, groups: Groups) -> tuple[jax.Array, jax.Array, dict]:
    mask = groups.mask & (groups.weight > 0)[:, None, None]
    logps, entropies = score(model, config, fmt, params, groups)
    total, count, metrics = dapo.dapo_loss(
      logps,
      groups.old_logps,
      groups.advantages,
      mask,
      config.eps_low,
      config.eps_high,
    )
    low, high = dapo.ratio_range(logps, groups.old_logps, mask)
    one = jnp.ones((), jnp.float32)
    metrics |= {'ratio_min': (low, one), 'ratio_max': (high, one)}
    choice = mask & ((groups.allowed >= 0).sum(-1) != 1)
    metrics['entropy'] = (
      jnp.where(choice, entropies, 0.0).sum(),
      choice.sum(dtype=jnp.float32),
    )
    return total, count, metrics

  return loss
