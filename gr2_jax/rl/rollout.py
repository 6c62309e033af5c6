"""Samples, parses and rewards the answers to a batch of prompts in one jit."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gr2_jax.decode import items as items_lib
from gr2_jax.decode import sampler
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl import dapo, groups, parse, rewards
from gr2_jax.rl.config import RLConfig
from gr2_jax.text.answer import AnswerFormat


@flax.struct.dataclass
class PromptBatch:
  """Prompts and what their answers are measured by.

  Attributes:
    prompt: int32 [Q, P], right-padded.
    prompt_valid: bool [Q, P].
    candidate_sids: int32 [Q, K, L] codes, in pre-rank order.
    candidate_mask: bool [Q, K], False for the padding of short lists.
    citable_sids: int32 [Q, M, L] codes of the items that the prompt shows.
    citable_mask: bool [Q, M], False for padding.
    target: int32 [Q], 0-based place of the true item among the candidates; of
      several positives the best graded, first in pre-rank order.
    grades: int32 [Q, K], 0 for a negative; one-hot where there is one positive.
    row: int32 [Q], which list of the data it is.
    features: float32 [Q, K, F], evidence columns.
    history: int32 [Q, H], the direct prompt of the same list, right-padded; H
      is 0 where `prompt` is the direct one.
    history_valid: bool [Q, H].
  """

  prompt: jax.Array
  prompt_valid: jax.Array
  candidate_sids: jax.Array
  candidate_mask: jax.Array
  citable_sids: jax.Array
  citable_mask: jax.Array
  target: jax.Array
  grades: jax.Array
  row: jax.Array
  features: jax.Array
  history: jax.Array
  history_valid: jax.Array

  @property
  def items(self) -> items_lib.Items:
    """What answers may name."""
    return items_lib.Items(
      candidate_sids=self.candidate_sids,
      candidate_mask=self.candidate_mask,
      citable_sids=self.citable_sids,
      citable_mask=self.citable_mask,
    )


@flax.struct.dataclass
class Rollouts:
  """Answers with their rewards.

  Attributes:
    groups: what the update reads; weight 1 where the rank rewards differ, or
      everywhere without `RLConfig.dynamic_sampling`.
    written: bool [Q, G, S], generated tokens, EOS included.
    rewards: float32 [Q, G], shaped: what the advantages come from.
    rank_rewards: float32 [Q, G], R_rank only, `RLConfig.invalid` where invalid.
    rank_after: int32 [Q, G], 1-based; K + 1 where the true item is missing.
    valid: bool [Q, G], the answer parses and is a permutation.
    identity: bool [Q, G], it is valid and keeps the pre-rank order.
  """

  groups: groups.Groups
  written: jax.Array
  rewards: jax.Array
  rank_rewards: jax.Array
  rank_after: jax.Array
  valid: jax.Array
  identity: jax.Array


@functools.partial(
  jax.jit, static_argnames=('model', 'config', 'fmt', 'num_samples')
)
def roll_out(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: PromptBatch,
  *,
  key: jax.Array,
  temperature: jax.Array,
  num_samples: int,
) -> Rollouts:
  """Samples `num_samples` answers a prompt and rewards them.

  Args:
    model: shape of the LM.
    config: settings of the reward and the sampler.
    fmt: the answer format.
    params: parameters of the LM, sharded for decoding.
    lists: the prompts.
    key: of this round; two steps never share one.
    temperature: float32 scalar, traced; 0 is greedy.
    num_samples: G, at least 2.

  Returns:
    The rollouts.
  """
  samples = _sample(
    model,
    config,
    fmt,
    params,
    lists,
    key=key,
    temperature=temperature,
    num_samples=num_samples,
  )
  return reward(config, fmt, lists, samples)


def reward(
  config: RLConfig,
  fmt: AnswerFormat,
  lists: PromptBatch,
  samples: sampler.Samples,
) -> Rollouts:
  """Parses and rewards answers.

  Args:
    config: settings of the reward.
    fmt: the answer format.
    lists: the prompts.
    samples: G answers to each.

  Returns:
    The rollouts.
  """
  places, valid, identity = read_places(samples, lists, fmt)
  rank_after = rewards.rank_of(lists.target, places)
  rank_rewards, shaped = rewards.score(
    config,
    lists.target,
    lists.grades,
    lists.candidate_mask,
    places=places,
    valid=valid,
    identity=identity,
  )
  if config.overlong_buffer:
    shaped += rewards.overlong(
      samples.mask.sum(-1), config.max_new_tokens, config.overlong_buffer
    )
  mask = samples.mask
  if config.credit == 'causal':
    mask &= _before_the_rest(samples.tokens, rank_after, valid, fmt)
  return Rollouts(
    groups=groups.Groups(
      prompt=lists.prompt,
      prompt_valid=lists.prompt_valid,
      tokens=samples.tokens,
      sampler_logps=samples.logps,
      old_logps=samples.logps,
      mask=mask,
      allowed=samples.allowed,
      advantages=dapo.group_advantage(shaped, config.advantage_norm),
      weight=_kept(config, rank_rewards).astype(jnp.float32),
      age=jnp.zeros(len(rank_rewards), jnp.int32),
    ),
    written=samples.mask,
    rewards=shaped,
    rank_rewards=rank_rewards,
    rank_after=rank_after,
    valid=valid,
    identity=identity,
  )


def _kept(config: RLConfig, rank_rewards: jax.Array) -> jax.Array:
  """Returns which groups are trained on, bool [Q]."""
  varied = groups.has_variance(rank_rewards)
  return varied if config.dynamic_sampling else jnp.ones_like(varied)


def _before_the_rest(
  tokens: jax.Array,
  rank_after: jax.Array,
  valid: jax.Array,
  fmt: AnswerFormat,
) -> jax.Array:
  """Marks what leads up to the true item [Q, G, S]; all where not valid.

  The first item is decided behind `top`, which is before `mid`: all of that is
  marked.
  """
  start = jnp.argmax(tokens == fmt.mid, axis=-1) + 1
  end = start + rank_after * (fmt.levels + 1) - 1
  place = jnp.arange(tokens.shape[-1])[None, None]
  return (place < end[..., None]) | ~valid[..., None]


@jax.jit
def summarise(rollouts: Rollouts) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns what a round says about the policy, as (sum, count) over answers.

  All groups count, those without variance too: `reward` (shaped),
  `rank_reward`, `valid_rate`, `identity_rate`, `answer_tokens`; and
  `kept_rate`, the share of groups with variance.
  """
  count = jnp.float32(rollouts.rewards.size)
  values = {
    'reward': rollouts.rewards,
    'rank_reward': rollouts.rank_rewards,
    'valid_rate': rollouts.valid,
    'identity_rate': rollouts.identity,
    'answer_tokens': rollouts.written,
  }
  pairs = {k: (v.sum(dtype=jnp.float32), count) for k, v in values.items()}
  weight = rollouts.groups.weight
  return {**pairs, 'kept_rate': (weight.sum(), jnp.float32(weight.size))}


@functools.partial(jax.jit, static_argnames=('model', 'config', 'fmt'))
def greedy_ranks(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: PromptBatch,
) -> tuple[jax.Array, jax.Array]:
  """Decodes one answer a prompt without sampling (validation).

  Args:
    model: shape of the LM.
    config: settings of the sampler.
    fmt: the answer format.
    params: parameters of the LM, sharded for decoding.
    lists: the prompts.

  Returns:
    rank_after int32 [Q], 1-based, the pre-rank one where the answer is invalid
    (what serving falls back to); valid bool [Q].
  """
  key = jax.random.key(0)  # Greedy decoding draws nothing.
  samples = _sample(
    model,
    config,
    fmt,
    params,
    lists,
    key=key,
    temperature=jnp.float32(0),
    num_samples=1,
  )
  places, valid, _ = read_places(samples, lists, fmt)
  rank_after = rewards.rank_of(lists.target, places)
  return served_rank(rank_after[:, 0], valid[:, 0], lists.target), valid[:, 0]


def served_rank(
  rank_after: jax.Array, valid: jax.Array, target: jax.Array
) -> jax.Array:
  """Returns 1-based ranks as served: the pre-rank one where not valid."""
  return jnp.where(valid, rank_after, target + 1)


def read_places(
  samples: sampler.Samples, lists: PromptBatch, fmt: AnswerFormat
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Reads where answers put the candidates.

  Args:
    samples: answers of [Q, G] rollouts.
    lists: the prompts.
    fmt: the answer format.

  Returns:
    places int32 [Q, G, K] (0-based; K where missing), valid bool [Q, G],
    identity bool [Q, G].
  """
  places, valid = parse.parse_ranking(
    samples.tokens,
    lists.candidate_sids[:, None],
    fmt,
    samples.mask,
    lists.candidate_mask[:, None],
  )
  given = jnp.arange(places.shape[-1])[None, None]
  same = (places == given) | ~lists.candidate_mask[:, None]
  return places, valid, valid & same.all(-1)


def _sample(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: PromptBatch,
  *,
  key: jax.Array,
  temperature: jax.Array,
  num_samples: int,
) -> sampler.Samples:
  return sampler.sample(
    model,
    params,
    lists.prompt,
    lists.prompt_valid,
    key,
    num_samples=num_samples,
    max_new_tokens=config.max_new_tokens,
    temperature=temperature,
    fmt=fmt,
    items=lists.items,
    constrain=config.constrain,
    explanation_tokens=config.explanation_tokens,
  )
