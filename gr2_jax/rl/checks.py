"""Checks of the RL settings: what could not work fails before anything runs."""

from typing import Any


def require(holds: bool, config: Any, name: str, remedy: str) -> None:
  """Refuses a setting.

  Args:
    holds: whether it is fine.
    config: an `RLConfig`.
    name: of the field.
    remedy: what it must be.

  Raises:
    ValueError: it is not.
  """
  if not holds:
    raise ValueError(f'rl.{name} = {getattr(config, name)!r} must be {remedy}.')


def sampling(config: Any) -> None:
  """Checks what concerns rounds, the buffer and old log-probs.

  Args:
    config: an `RLConfig`.

  Raises:
    ValueError: a setting without sense, by name.
  """
  require(
    config.over_sampling >= 1
    and config.prompts_per_round
    == config.over_sampling * config.prompts_per_step,
    config,
    'over_sampling',
    'at least 1, and give whole prompts: times prompts_per_step = '
    f'{config.prompts_per_step} it is '
    f'{config.over_sampling * config.prompts_per_step}',
  )
  require(config.max_staleness >= 0, config, 'max_staleness', 'at least 0')
  for name in ('max_rounds', 'over_sampling'):
    require(
      config.dynamic_sampling or getattr(config, name) == 1,
      config,
      name,
      '1 without dynamic_sampling: every group is kept, and more prompts '
      'would be drawn for nothing',
    )
  require(
    config.old_logps in ('sampler', 'recomputed'),
    config,
    'old_logps',
    "'sampler' or 'recomputed'",
  )
  require(
    config.tis_cap == 0
    or (config.tis_cap > 0 and config.old_logps == 'recomputed'),
    config,
    'tis_cap',
    "0, or above 0 with old_logps = 'recomputed': with the sampler's, the "
    'ratio is the correction',
  )


def loss(config: Any) -> None:
  """Checks the terms of the loss, and the model that it starts from.

  Args:
    config: an `RLConfig`.

  Raises:
    ValueError: a setting without sense, by name.
  """
  require(
    config.loss_level in ('token', 'sequence'),
    config,
    'loss_level',
    "'token' or 'sequence'",
  )
  for name in ('reward_weight', 'kl', 'entropy_bonus'):
    require(getattr(config, name) >= 0, config, name, 'at least 0')
  require(
    config.reward_weight > 0 or config.kl > 0,
    config,
    'reward_weight',
    'above 0, or rl.kl be: nothing would be learned',
  )
  require(
    (config.kl > 0) == bool(config.reference),
    config,
    'reference',
    f'a model exactly where rl.kl = {config.kl} is above 0',
  )
  require(
    not config.kl or config.credit == 'answer',
    config,
    'credit',
    "'answer' with rl.kl: the policy is held to the reference behind the true "
    'item, too',
  )
  require(
    config.start in ('sft', 'midtrain'), config, 'start', "'sft' or 'midtrain'"
  )


def rankings(config: Any) -> None:
  """Checks what concerns rankings that are drawn from utilities.

  Args:
    config: an `RLConfig`.

  Raises:
    ValueError: a setting without sense, by name.
  """
  require(
    config.lists in ('unseen', 'train', 'folds'),
    config,
    'lists',
    "'unseen', 'train' or 'folds'",
  )
  halves = (
    'an even number of at least 4: half of them are drawn by each head, and '
    'compared with one another'
  )
  even = lambda x: x >= 4 and x % 2 == 0
  require(even(config.rankings), config, 'rankings', halves)
  parts = config.updates_per_rollout * config.microbatches
  multiple = f'a multiple of updates_per_rollout * microbatches = {parts}'
  lists, explained = config.lists_per_step, config.explained_per_step
  require(lists >= 1 and lists % parts == 0, config, 'lists_per_step', multiple)
  require(
    explained >= 0 and explained % parts == 0,
    config,
    'explained_per_step',
    f'0 (none) or {multiple}',
  )
  require(
    not explained or even(config.group_size),
    config,
    'group_size',
    f'{halves}; or explained_per_step = {explained} be 0',
  )
