"""The loss of an update: each prompt is read once for its G answers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax.decode import parts
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
  table = tables.output(model, params)

  def score_part(part, tokens, allowed, states):
    return logps_lib.chunked_logps(
      part.logits,
      part.rows(table),
      states,
      tokens,
      temperature=config.temperature,
      allowed=allowed,
      banned=part.banned,
    )

  states = _states(model, params, groups)
  given = model, config, fmt, groups
  return _by_parts(*given, score_part=score_part, states=(states,))


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
  *,
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
  both_tables = tables.output(model, params), tables.output(reference, frozen)

  def score_part(part, tokens, allowed, states, others):
    beside = dataclasses.replace(part, model=reference)

    def compare(rows, tokens, states, others, allowed):
      logits, limits = (
        part.logits(rows[0], states),
        (config.temperature, allowed, part.banned),
      )
      kl = logps_lib.token_kl(logits, beside.logits(rows[1], others), *limits)
      return *logps_lib.token_logps(logits, tokens, *limits), kl

    rows = tuple(part.rows(table) for table in both_tables)
    width = sum(len(x) for x in rows)
    inputs = tokens, states, others, allowed
    return logps_lib.chunked(compare, width, rows, inputs)

  states = _states(model, params, groups), _states(reference, frozen, groups)
  given = model, config, fmt, groups
  return _by_parts(*given, score_part=score_part, states=states)


def _by_parts(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  groups: Groups,
  *,
  score_part: Callable[..., tuple[jax.Array, ...]],
  states: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
  """Scores what each part of the vocabulary serves, the list behind the rest.

  Args:
    model: shape of the LM.
    config: constraint of the rollouts.
    fmt: the answer format.
    groups: the answers.
    score_part: of a part, and of tokens, allowed ids (both as numbers within
      it) and states of some places.
    states: [Q, G, S, D] each.

  Returns:
    What `score_part` returns, [Q, G, S] each.
  """
  length = groups.tokens.shape[-1]
  split = length
  if config.constrain:
    split = min(parts.begin(config.explanation_tokens), length)
  spans = (0, split), (split, length)
  scored = []
  # Without the constraint one part serves all places.
  for part, (start, stop) in zip(
    parts.served(model, fmt, config.constrain), spans, strict=False
  ):
    if start < stop:
      tokens, allowed, *cut = (
        jax.lax.slice_in_dim(x, start, stop, axis=2)
        for x in (groups.tokens, groups.allowed, *states)
      )
      scored.append(
        score_part(part, part.inside(tokens), part.inside(allowed), *cut)
      )
  return tuple(jnp.concatenate(x, -1) for x in zip(*scored, strict=True))


def _states(model: LMConfig, params: Any, groups: Groups) -> jax.Array:
  """Returns the states [Q, G, S, D] that say what each token is."""
  return decoder.Decoder(model).apply(
    {'params': params},
    groups.prompt,
    groups.prompt_valid,
    # The last token of an answer is predicted, but predicts nothing.
    groups.tokens[..., :-1],
    method='hidden_shared',
  )


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
      logps, entropies, kl = score_beside(
        *given, reference=reference, frozen=frozen[0]
      )
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
    eps_low=config.eps_low,
    eps_high=config.eps_high,
    level=config.loss_level,
    weights=weights,
  )
  return config.reward_weight * total, count, metrics | more
