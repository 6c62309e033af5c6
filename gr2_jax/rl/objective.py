"""The loss of an update: each prompt is read once for its G answers."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax.decode import constrain
from gr2_jax.lm import decoder, tables
from gr2_jax.lm import logps as logps_lib
from gr2_jax.lm.config import LMConfig
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
  return logps_lib.chunked_logps(
    _unembed(model, config, fmt),
    tables.output(model, params),
    _states(model, params, groups),
    groups.tokens,
    config.temperature,
    groups.allowed,
  )


@functools.partial(jax.jit, static_argnames=('model', 'config', 'fmt'))
def recompute(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  params: Any,
  groups: Groups,
) -> Groups:
  """Puts the log-probs that the trainer's program gives in `old_logps`.

  Args:
    model: shape of the LM.
    config: temperature and constraint of the rollouts.
    fmt: the answer format.
    params: parameters of the LM before the first update of the step.
    groups: the answers.

  Returns:
    The groups; those of earlier steps keep the sampler's log-probs, because
    `params` are newer than the policy that sampled them.
  """
  logps, _ = score(model, config, fmt, params, groups)
  fresh = (groups.age == 0)[:, None, None]
  return groups.replace(old_logps=jnp.where(fresh, logps, groups.sampler_logps))


def score_beside(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  params: Any,
  groups: Groups,
  reference: LMConfig,
  frozen: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Scores answers as `score` does, and compares with a reference.

  The whole distributions are compared, under the temperature and the constraint
  of the rollouts, in chunks: the logits of all tokens never exist at once.

  Args:
    model: shape of the LM.
    config: temperature and constraint of the rollouts.
    fmt: the answer format.
    params: parameters of the LM.
    groups: the answers.
    reference: shape of the reference, of the same vocabulary.
    frozen: its parameters; no gradient runs through them.

  Returns:
    (log-probs, entropies, KL(LM || reference)), float32 [Q, G, S].
  """
  frozen = jax.lax.stop_gradient(frozen)
  unembed = _unembed(model, config, fmt)
  unembed_frozen = _unembed(reference, config, fmt)

  def compare(both, tokens, states, others, allowed):
    logits, limits = unembed(both[0], states), (config.temperature, allowed)
    other_logits = unembed_frozen(both[1], others)
    kl = logps_lib.token_kl(logits, other_logits, *limits)
    return *logps_lib.token_logps(logits, tokens, *limits), kl

  return logps_lib.chunked(
    compare,
    model.vocab_size + reference.vocab_size,
    (
      tables.output(model, params),
      tables.output(reference, frozen),
    ),
    groups.tokens,
    _states(model, params, groups),
    _states(reference, frozen, groups),
    groups.allowed,
  )


def _states(model: LMConfig, params: Any, groups: Groups) -> jax.Array:
  """Returns the states [Q, G, S, D] that say what each token is."""
  apply = functools.partial(decoder.Decoder(model).apply, {'params': params})
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
  return jnp.concatenate([first, tail], axis=2)


def _unembed(
  model: LMConfig, config: RLConfig, fmt: AnswerFormat
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns (table, states) -> logits, without what no explanation may hold."""

  def logits_of(table: jax.Array, states: jax.Array) -> jax.Array:
    logits = tables.unembed(model, table, states)
    return constrain.ban(logits, fmt) if config.constrain else logits

  return logits_of


def make_loss(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  reference: LMConfig | None = None,
) -> Callable[..., tuple[jax.Array, jax.Array, dict]]:
  """Returns the loss as a function of parameters and groups.

  It is the DAPO loss, and where the settings say so, plus `kl` times the KL to
  the reference and minus `entropy_bonus` times the entropy, over the same
  tokens and with the same divisor.

  Args:
    model: shape of the LM.
    config: settings.
    fmt: the answer format.
    reference: shape of the reference, where `config.kl` is above 0.

  Returns:
    `(params, groups, *frozen) -> (loss_sum, count, metrics)`; `frozen` are the
    reference's parameters, if any; metrics are (sum, count), for `ratio_min`
    and `ratio_max` (extreme, 1). Groups of weight 0 count for nothing.
    `entropy` runs over the tokens that had a choice: constrained answers are
    full of forced ones. `sampler_gap` is the difference to the sampler's
    log-probs where this step sampled: rounding alone before the first update.
  """

  def loss(
    params: Any, groups: Groups, *frozen: Any
  ) -> tuple[jax.Array, jax.Array, dict]:
    mask = groups.mask & (groups.weight > 0)[:, None, None]
    given = model, config, fmt, params, groups
    if config.kl:
      logps, entropies, kl = score_beside(*given, reference, *frozen)
    else:
      logps, entropies = score(*given)
    total, count, metrics = _surrogate(config, logps, groups, mask)
    if config.kl:
      total += config.kl * dapo.reduce(kl, mask, config.loss_level)[0]
      metrics['kl'] = dapo.reduce(kl, mask, 'token')
    if config.entropy_bonus:
      bonus, _ = dapo.reduce(entropies, mask, config.loss_level)
      total -= config.entropy_bonus * bonus
    low, high = dapo.ratio_range(logps, groups.old_logps, mask)
    one = jnp.ones((), jnp.float32)
    metrics |= {'ratio_min': (low, one), 'ratio_max': (high, one)}
    choice = mask & ((groups.allowed >= 0).sum(-1) != 1)
    metrics['entropy'] = dapo.reduce(entropies, choice, 'token')
    fresh = mask & (groups.age == 0)[:, None, None]
    gap = jnp.abs(logps - groups.sampler_logps)
    metrics['sampler_gap'] = dapo.reduce(gap, fresh, 'token')
    return total, count, metrics

  return loss


def _surrogate(
  config: RLConfig, logps: jax.Array, groups: Groups, mask: jax.Array
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns the weighed DAPO loss, its count and metrics."""
  weights, more = None, {}
  if config.tis_cap:
    weights = dapo.truncated_weights(
      groups.old_logps, groups.sampler_logps, mask, config.tis_cap
    )
    capped = (weights >= config.tis_cap).astype(jnp.float32)
    more['tis_weight'] = dapo.reduce(weights, mask, 'token')
    more['tis_capped'] = dapo.reduce(capped, mask, 'token')
  total, count, metrics = dapo.dapo_loss(
    logps,
    groups.old_logps,
    groups.advantages,
    mask,
    config.eps_low,
    config.eps_high,
    config.loss_level,
    weights,
  )
  return config.reward_weight * total, count, metrics | more
