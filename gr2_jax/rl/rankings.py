"""DAPO on rankings that are drawn from utilities (Plackett-Luce).

An answer is an explanation, or none, and a permutation of the candidates drawn
from their utilities after it: each place of the list is an action with a
probability of its own, as a token is. So ratio, clip and credit work place by
place (`ranking_loss.py`). Half of a prompt's G rankings are drawn by each head
(`rank.heads`), and compared with those of the same head: both learn.

Letters: Q prompts, G rankings, K candidates, S words, A allowed ids.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gr2_jax import sharding
from gr2_jax.decode import parts, sampler
from gr2_jax.lm import logps as logps_lib
from gr2_jax.lm import tables
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import heads, plackett_luce, utilities
from gr2_jax.rl import dapo, groups, rewards
from gr2_jax.rl.config import RLConfig
from gr2_jax.rl.rollout import PromptBatch
from gr2_jax.text.answer import AnswerFormat


@flax.struct.dataclass
class Words:
  """Explanations before the rankings.

  Attributes:
    tokens: int32 [Q, G, S], `open`, words and `top`, right-padded.
    written: bool [Q, G, S], their tokens.
    allowed: int32 [Q, G, S, A], ids each place could take; see the sampler.
    sampler_logps: float32 [Q, G, S], of the sampler.
    old_logps: float32 [Q, G, S], of the same policy by the trainer's program.
  """

  tokens: jax.Array
  written: jax.Array
  allowed: jax.Array
  sampler_logps: jax.Array
  old_logps: jax.Array


@flax.struct.dataclass
class Rankings:
  """G rankings of each list; the arrays that an update reads.

  Attributes:
    lists: prompts and candidates.
    words: what was written before, or None.
    order: int32 [Q, G, K], the candidate on each place, padding last.
    old_logps: float32 [Q, G, K], of each place under the policy that drew it.
    mask: bool [Q, G, K], places that learn.
    advantages: float32 [Q, G].
    weight: float32 [Q], 0 for a list whose rank rewards are equal within each
      half.
  """

  lists: PromptBatch
  words: Words | None
  order: jax.Array
  old_logps: jax.Array
  mask: jax.Array
  advantages: jax.Array
  weight: jax.Array


def by_head(
  head: Any,
  logps: jax.Array,
  features: jax.Array,
  num_samples: int,
  behind: jax.Array | None = None,
) -> jax.Array:
  """Computes the utilities that each of G rankings is drawn from.

  Args:
    head: from `heads.fit`.
    logps: float32 [Q, K], of the semantic IDs after the history.
    features: float32 [Q, K, F].
    num_samples: G, even: the first half is drawn by the full head.
    behind: float32 [Q, G, K], the same after the words; None without words.

  Returns:
    float32 [Q, G, K].
  """
  half = num_samples // 2
  parts = []
  for name, begin in ((heads.FULL, 0), (heads.ALONE, half)):
    own = None if behind is None else behind[:, begin : begin + half]
    values = heads.utilities(head, name, logps[:, None], features[:, None], own)
    shape = (len(logps), half, logps.shape[-1])
    parts.append(jnp.broadcast_to(values, shape))
  return jnp.concatenate(parts, axis=1)


def score(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: PromptBatch,
  *,
  words: Words | None,
  num_samples: int,
) -> tuple[jax.Array, jax.Array | None]:
  """Computes the utilities behind G explanations, or without any.

  Args:
    model: shape of the LM.
    config: temperature of the words.
    fmt: the answer format.
    params: {'lm', 'head'}.
    lists: with explained prompts and the direct ones beside them where there
      are words, else with direct ones.
    words: what was written; its log-probs are not read.
    num_samples: G.

  Returns:
    (utilities float32 [Q, G, K]; log-probs of the words float32 [Q, G, S], or
    None).
  """
  lm, behind, scored = params['lm'], None, None
  direct = (lists.prompt, lists.prompt_valid)
  if words is not None:
    direct = (lists.history, lists.history_valid)
    states, behind = utilities.explained_logps(
      model,
      fmt,
      lm,
      lists.prompt,
      lists.prompt_valid,
      words=words.tokens,
      written=words.written,
      sids=lists.candidate_sids,
    )
    (part, *_) = parts.served(model, fmt, constrain=True)
    scored, _ = logps_lib.chunked_logps(
      part.logits,
      tables.output(model, lm),
      states,
      words.tokens,
      temperature=config.temperature,
      allowed=words.allowed,
      banned=part.banned,
    )
  logps = utilities.sid_logps(
    model, fmt, lm, *direct, sids=lists.candidate_sids
  )
  values = by_head(params['head'], logps, lists.features, num_samples, behind)
  return values, scored


@functools.partial(jax.jit, static_argnames=('model', 'config', 'fmt'))
def draw(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: PromptBatch,
  *,
  key: jax.Array,
  samples: sampler.Samples | None = None,
) -> tuple[Rankings, dict[str, tuple[jax.Array, jax.Array]]]:
  """Draws rankings, and rewards them.

  Args:
    model: shape of the LM.
    config: settings.
    fmt: the answer format.
    params: {'lm', 'head'}.
    lists: with explained prompts where there are samples, else direct ones.
    key: of this step.
    samples: the words of G explanations, or None for rankings without.

  Returns:
    (the rankings, metrics of pairs (sum, count): see `reward`).
  """
  words, size = None, config.rankings
  if samples is not None:
    size = samples.tokens.shape[1]
    words = Words(
      samples.tokens, samples.mask, samples.allowed, samples.logps,
      samples.logps,
    )  # fmt: skip
  values, scored = score(
    model, config, fmt, params, lists, words=words, num_samples=size
  )
  mask = lists.candidate_mask
  order = plackett_luce.draw(key, values, mask, size)
  old, entropy = plackett_luce.log_probs(values, mask[:, None], order)
  if words is not None:
    words = words.replace(old_logps=scored)
  return reward(config, lists, words, order, old_logps=old, entropy=entropy)


def reward(
  config: RLConfig,
  lists: PromptBatch,
  words: Words | None,
  order: jax.Array,
  *,
  old_logps: jax.Array,
  entropy: jax.Array,
) -> tuple[Rankings, dict[str, tuple[jax.Array, jax.Array]]]:
  """Rewards rankings; every one is valid.

  Args:
    config: settings of the reward.
    lists: the lists.
    words: what was written before, or None.
    order: int32 [Q, G, K].
    old_logps: float32 [Q, G, K].
    entropy: float32 [Q, G, K], of the choice on each place.

  Returns:
    (the rankings; `reward`, `rank_reward`, `identity_rate`, `kept_rate` and
    `place_entropy` as (sum, count)).
  """
  queries, size, width = order.shape
  places = jnp.argsort(order, axis=-1)
  real = lists.candidate_mask[:, None]
  same = (places == jnp.arange(width)[None, None]) | ~real
  identity = same.all(-1)
  rank_rewards, shaped = rewards.score(
    config,
    lists.target,
    lists.grades,
    lists.candidate_mask,
    places=places,
    valid=jnp.ones_like(identity),
    identity=identity,
  )
  mask = _credit(config, lists, places)
  by_half = lambda x: x.reshape(queries * 2, size // 2)
  advantages = dapo.group_advantage(by_half(shaped), config.advantage_norm)
  kept = groups.has_variance(by_half(rank_rewards)).reshape(queries, 2).any(1)
  if not config.dynamic_sampling:
    kept = jnp.ones_like(kept)
  count = jnp.float32(queries * size)
  metrics = {
    'reward': (shaped.sum(), count),
    'rank_reward': (rank_rewards.sum(), count),
    'identity_rate': (identity.sum(dtype=jnp.float32), count),
    'kept_rate': (kept.sum(dtype=jnp.float32), jnp.float32(queries)),
    'place_entropy': dapo.reduce(entropy, mask, 'token'),
  }
  return Rankings(
    lists=lists,
    words=words,
    order=order,
    old_logps=old_logps,
    mask=mask,
    advantages=advantages.reshape(queries, size),
    weight=kept.astype(jnp.float32),
  ), metrics


def _credit(
  config: RLConfig, lists: PromptBatch, places: jax.Array
) -> jax.Array:
  """Marks the places that learn [Q, G, K], by places of the candidates."""
  place = jnp.arange(places.shape[-1])[None, None]
  # The last one that is left is no choice.
  mask = place < lists.candidate_mask.sum(-1)[:, None, None] - 1
  if config.credit == 'causal':
    mask &= place < rewards.rank_of(lists.target, places)[..., None]
  return jnp.broadcast_to(mask, places.shape)


@functools.partial(jax.jit, static_argnames='count')
def part(drawn: Rankings, index: jax.Array, count: int) -> Rankings:
  """Takes a mini-batch: every `count`-th list, from `index` on.

  Args:
    drawn: rankings of Q lists.
    index: which part; traced.
    count: number of mini-batches; divides Q.

  Returns:
    Those of Q / count lists.
  """

  def take(x: jax.Array) -> jax.Array:
    rows = x.reshape(x.shape[0] // count, count, *x.shape[1:])
    rows = jax.lax.dynamic_index_in_dim(rows, index, axis=1, keepdims=False)
    return sharding.constrain(rows, 'batch', *(None,) * (rows.ndim - 1))

  return jax.tree.map(take, drawn)
