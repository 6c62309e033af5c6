"""The settings of the RL stage, checked when they are made."""

import dataclasses
from typing import Literal

from gr2_jax.decode import constrain
from gr2_jax.text.answer import AnswerFormat


@dataclasses.dataclass(frozen=True)
class RLConfig:
  """Settings of DAPO on candidate lists.

  Attributes:
    steps: RL steps: rollouts and the updates on them. 600 for an 8B model [N].
    prompts_per_step: Q, groups that a step trains on.
    group_size: G, rollouts a prompt; 8 [N].
    updates_per_rollout: mini-batches that the Q groups are split into, one
      update each. With one the ratio would always be 1 and the clip dead.
    microbatches: parts of a mini-batch whose gradients are summed [our choice].
    max_rounds: a step samples at most so many times Q prompts to find groups
      with variance [G].
    lr: constant learning rate after the warm-up; 5e-7 to 1e-6 for 8B [N],
      larger for models trained from scratch [G].
    warmup_steps: updates of linear warm-up [G].
    weight_decay: of AdamW [G].
    clip_norm: bound of the gradient's global norm [G].
    temperature: of the rollouts and of their log-probs; 1 [G].
    max_new_tokens: S, longest answer, EOS included.
    explanation_tokens: budget of a constrained explanation.
    constrain: the list can only become a permutation of the candidates [G].
    conditional: pay the format reward only for a deserved order [P]; False is
      the reward that can be hacked, for comparison.
    alpha: weight of the format reward; 0.2 [N].
    advantage_norm: 'std' [P] or 'none'.
    credit: which tokens learn: 'answer', all of them [P], or 'causal', those up
      to the true item. Where the constraint makes every answer valid, no later
      token can change the reward: leaving them out takes noise from the
      gradient and nothing else [G].
    eps_low: lower clip; 0.2 [P].
    eps_high: upper clip; 0.28 [P].
    overlong_buffer: last tokens of the budget over which the soft overlong
      penalty grows from 0 to -1.
    prompt_buckets: lengths that prompts are padded to, one compilation each;
      empty for one bucket, the longest prompt rounded up to 32.
    log_every: steps between lines of metrics.jsonl.
    checkpoint_every: steps between checkpoints and greedy validations.
    rollouts_every: steps between groups written to rollouts.jsonl.
    valid_lists: validation lists that are decoded greedily at each checkpoint
      (the first ones with a hit); 0 for none.
  """

  steps: int
  max_new_tokens: int
  explanation_tokens: int
  prompts_per_step: int = 8
  group_size: int = 8
  updates_per_rollout: int = 2
  microbatches: int = 1
  max_rounds: int = 2
  lr: float = 1e-6
  warmup_steps: int = 0
  weight_decay: float = 0.0
  clip_norm: float = 1.0
  temperature: float = 1.0
  constrain: bool = True
  conditional: bool = True
  alpha: float = 0.2
  advantage_norm: Literal['std', 'none'] = 'std'
  credit: Literal['answer', 'causal'] = 'answer'
  eps_low: float = 0.2
  eps_high: float = 0.28
  overlong_buffer: int = 8
  prompt_buckets: tuple[int, ...] = ()
  log_every: int = 1
  checkpoint_every: int = 20
  rollouts_every: int = 10
  valid_lists: int = 0

  def __post_init__(self):
    """Refuses settings under which training would silently do nothing."""
    for name in ('steps', 'prompts_per_step', 'max_rounds', 'microbatches'):
      _require(getattr(self, name) >= 1, self, name, 'at least 1')
    for name in ('log_every', 'checkpoint_every', 'rollouts_every'):
      _require(getattr(self, name) >= 1, self, name, 'at least 1')
    _require(self.valid_lists >= 0, self, 'valid_lists', 'at least 0')
    _require(
      self.group_size >= 2,
      self,
      'group_size',
      'at least 2: the advantage compares answers to one prompt',
    )
    _require(
      self.updates_per_rollout >= 2,
      self,
      'updates_per_rollout',
      'at least 2: with one the ratio is always 1 and the clip never acts',
    )
    parts = self.updates_per_rollout * self.microbatches
    _require(
      self.prompts_per_step % parts == 0,
      self,
      'prompts_per_step',
      f'a multiple of updates_per_rollout * microbatches = {parts}',
    )
    _require(self.temperature > 0, self, 'temperature', 'above 0')
    _require(
      0 < self.overlong_buffer < self.max_new_tokens,
      self,
      'overlong_buffer',
      f'above 0 and below max_new_tokens = {self.max_new_tokens}',
    )
    _require(
      self.advantage_norm in ('std', 'none'),
      self,
      'advantage_norm',
      "'std' or 'none'",
    )
    _require(
      self.credit == 'answer' or (self.credit == 'causal' and self.constrain),
      self,
      'credit',
      "'answer', or 'causal' with rl.constrain: without it, what follows the "
      'true item decides whether the answer is valid',
    )
    _require(
      tuple(sorted(self.prompt_buckets)) == tuple(self.prompt_buckets),
      self,
      'prompt_buckets',
      'in rising order',
    )


def _require(holds: bool, config: RLConfig, name: str, remedy: str) -> None:
  if not holds:
    raise ValueError(f'rl.{name} = {getattr(config, name)!r} must be {remedy}.')


def check_answers_fit(
  config: RLConfig, fmt: AnswerFormat, num_candidates: int
) -> None:
  """Refuses a token budget that no complete answer fits into.

  Args:
    config: the settings.
    fmt: the answer format.
    num_candidates: K.

  Raises:
    ValueError: an answer with the whole explanation budget would be cut off.
  """
  need = constrain.answer_length(fmt, num_candidates, config.explanation_tokens)
  if config.max_new_tokens < need:
    raise ValueError(
      f'rl.max_new_tokens = {config.max_new_tokens}, but an explanation of '
      f'{config.explanation_tokens} tokens and a list of {num_candidates} take '
      f'{need}: raise max_new_tokens or lower explanation_tokens.'
    )


def check_mesh(config: RLConfig, parts: int) -> None:
  """Refuses groups that do not divide by the devices.

  Args:
    config: the settings.
    parts: devices over which a batch is split.

  Raises:
    ValueError: a micro-batch of groups does not divide by `parts`.
  """
  split = config.updates_per_rollout * config.microbatches
  groups = config.prompts_per_step // split
  if groups % parts:
    raise ValueError(
      f'rl.prompts_per_step = {config.prompts_per_step} in {split} parts gives '
      f'{groups} groups at a time, which do not divide by the {parts} devices '
      f'that split a batch: make it a multiple of {split * parts}.'
    )
