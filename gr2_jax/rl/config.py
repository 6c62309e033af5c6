"""The settings of the RL stage, checked when they are made."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RLConfig:
  """Settings of DAPO on candidate lists.

  Sizes, steps and rates are for a decoder of about two million parameters that
  is trained on a CPU [our choice].

  Attributes:
    steps: RL steps: rollouts and the updates on them. 600 for an 8B model [N].
    prompts_per_step: Q, groups that a step trains on, of lists that are written
      token by token.
    group_size: G, rollouts a prompt; 8 [N].
    lists: which candidate lists RL trains on: 'unseen', those of the last
      training positions that SFT leaves (`traces.sft_share`), 'train', all
      of these, or 'folds', the cross-fitted ones [G].
    lists_per_step: lists without explanation a step, with utilities: they cost
      one pass each [G].
    rankings: G of these lists, an even number, half by each head [G].
    explained_per_step: lists with explanations a step, each with `group_size`
      of them; 0 for none [G].
    updates_per_rollout: mini-batches that the Q groups are split into, one
      update each, on lists of both kinds. With one the ratio would always be 1
      and the clip dead; with 16 the policy moves away from the one that drew,
      and the clip acts [G].
    microbatches: parts of a mini-batch whose gradients are summed [our choice].
    max_rounds: rounds of sampling a step, at most, to find Q groups with
      variance [G].
    over_sampling: prompts of a round over Q; their number must be whole [G].
    max_staleness: RL steps, at most, that groups wait which a step has no use
      for; 0 drops them at once. 1 [G]: their rollouts are paid for, and the
      ratio with the log-probs of the policy that sampled them corrects for a
      step's updates.
    dynamic_sampling: train on groups only whose rank rewards differ [P]; False
      keeps all, which have something to learn where `kl` is on.
    old_logps: where the ratio starts from: 'sampler', the log-probs that the
      rollouts came with, or 'recomputed', by the trainer's program before the
      first update. Groups of earlier steps keep the sampler's: their policy is
      gone.
    tis_cap: truncated importance sampling: a token's surrogate is weighed by
      min(pi_old / pi_sampler, tis_cap); 0 turns it off. It corrects for what
      'recomputed' takes out of the ratio, so it needs that.
    lr: constant learning rate after the warm-up; 5e-7 to 1e-6 for 8B [N],
      larger for models trained from scratch [G].
    warmup_steps: updates of linear warm-up [G].
    weight_decay: of AdamW [G].
    clip_norm: bound of the gradient's global norm [G].
    temperature: of the rollouts and of their log-probs; 1 [G].
    max_new_tokens: S, longest answer, EOS included.
    explanation_tokens: budget of a constrained explanation.
    constrain: the list can only become a permutation of the candidates [G].
    reward: R_rank. 'promotion', of the one true item [P]; 'auc' or 'ndcg', of
      all grades of the list [P: GR2-T], for candidates from slates.
    conditional: pay the format reward only for a deserved order [P]: for
      'promotion' one that rises or stays first, for grades GR2-T's identity
      rule. False is the reward that can be hacked, for comparison.
    alpha: weight of the format reward; 0.2 [N], less here [G]: each swap of two
      equally likely neighbours earns alpha times the chance that one of them is
      true, so a weak ranker is paid 0.2 for shuffling.
    invalid: reward of an answer that is no permutation, -1 [N] or 0 [our
      choice]; of no concern with `constrain`. With -1 a list that is surely
      valid beats a better one that often is not, whatever `conditional` says
      (`rewards.conditional` has the bound), and the order ends below the one it
      was given (`results/reward_world.md`). With 0 groups that differ in
      validity alone are filtered out, so nothing teaches a policy that mostly
      fails to write lists.
    advantage_norm: 'std' [P] or 'none'.
    credit: which tokens learn: 'answer', all of them [P], or 'causal', those up
      to the true item. Where the constraint makes every answer valid, no later
      token can change the promotion: leaving them out takes noise from the
      gradient and nothing else [G].
    eps_low: lower clip; 0.2 [P].
    eps_high: upper clip; 0.28 [P].
    loss_level: 'token' [P], or 'sequence': mean over each answer's tokens, then
      over answers.
    reward_weight: of the surrogate; 0 leaves distillation alone.
    reference: frozen model that `kl` holds the policy to: 'sft', the model of
      that stage, or the directory of a model (`lm/io.py`) of the same
      vocabulary, such as a larger teacher's; empty for none.
    kl: weight of KL(policy || reference), over the whole distribution of each
      token of the rollouts, beside the surrogate: beta of on-policy
      distillation [GR2-T]; 0, off, is DAPO [P].
    entropy_bonus: weight of the entropy of each token's distribution, which is
      rewarded; 0, off [P].
    start: the stage whose model RL starts from: 'sft', or 'midtrain' for
      distillation in place of SFT [GR2-T].
    overlong_buffer: last tokens of the budget over which the soft overlong
      penalty grows from 0 to -1; 0 for no penalty [G], the default: where the
      answer is constrained, its length is bounded already.
    prompt_buckets: lengths that prompts are padded to, one compilation each;
      empty for one bucket, the longest prompt rounded up to 32.
    log_every: steps between lines of metrics.jsonl.
    checkpoint_every: steps between checkpoints and greedy validations.
    rollouts_every: steps between groups written to rollouts.jsonl.
    valid_lists: validation lists that are decoded greedily at each checkpoint
      (the first ones with a hit); 0 for none.
    max_skipped: steps in a row with an update that was skipped, because its
      loss or gradient was not finite, after which RL ends.
    keep_best: the checkpoint with the best validated NDCG@5 stays, beside the
      two latest ones, and becomes the model, or of rankings the model that RL
      began with where that one is better; False takes the last step.
  """

  steps: int = 8
  max_new_tokens: int = 96
  explanation_tokens: int = 32
  prompts_per_step: int = 64
  group_size: int = 8
  lists: Literal['unseen', 'train', 'folds'] = 'unseen'
  lists_per_step: int = 512
  rankings: int = 256
  explained_per_step: int = 32
  updates_per_rollout: int = 16
  microbatches: int = 1
  max_rounds: int = 2
  over_sampling: float = 1.0
  max_staleness: int = 1
  dynamic_sampling: bool = True
  old_logps: Literal['sampler', 'recomputed'] = 'sampler'
  tis_cap: float = 0.0
  lr: float = 6e-5
  warmup_steps: int = 0
  weight_decay: float = 0.0
  clip_norm: float = 1.0
  temperature: float = 1.0
  constrain: bool = True
  reward: Literal['promotion', 'auc', 'ndcg'] = 'promotion'
  conditional: bool = True
  alpha: float = 0.02
  invalid: float = 0.0
  advantage_norm: Literal['std', 'none'] = 'std'
  credit: Literal['answer', 'causal'] = 'causal'
  loss_level: Literal['token', 'sequence'] = 'token'
  reward_weight: float = 1.0
  reference: str = ''
  kl: float = 0.0
  entropy_bonus: float = 0.0
  start: Literal['sft', 'midtrain'] = 'sft'
  eps_low: float = 0.2
  eps_high: float = 0.28
  overlong_buffer: int = 0
  prompt_buckets: tuple[int, ...] = ()
  log_every: int = 1
  checkpoint_every: int = 1
  rollouts_every: int = 10
  valid_lists: int = 0
  max_skipped: int = 3
  keep_best: bool = True

  def __post_init__(self):
    """Refuses settings under which training would silently do nothing."""
    for name in ('lr', 'warmup_steps', 'weight_decay', 'clip_norm', 'alpha'):
      _require(getattr(self, name) >= 0, self, name, 'at least 0')
    for name in ('explanation_tokens', 'eps_high'):
      _require(getattr(self, name) >= 0, self, name, 'at least 0')
    _require(0 <= self.eps_low < 1, self, 'eps_low', 'at least 0, below 1')
    for name in ('steps', 'prompts_per_step', 'max_rounds', 'microbatches'):
      _require(getattr(self, name) >= 1, self, name, 'at least 1')
    for name in ('log_every', 'checkpoint_every', 'rollouts_every'):
      _require(getattr(self, name) >= 1, self, name, 'at least 1')
    _require(self.max_skipped >= 1, self, 'max_skipped', 'at least 1')
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
      self.advantage_norm in ('std', 'none'),
      self,
      'advantage_norm',
      "'std' or 'none'",
    )
    _check_reward(self)
    _require(
      tuple(sorted(self.prompt_buckets)) == tuple(self.prompt_buckets),
      self,
      'prompt_buckets',
      'in rising order',
    )
    _check_sampling(self)
    _check_rankings(self)
    _check_loss(self)

  @property
  def prompts_per_round(self) -> int:
    """Prompts that a round samples, of all processes together."""
    return round(self.over_sampling * self.prompts_per_step)


def _require(holds: bool, config: RLConfig, name: str, remedy: str) -> None:
  """Refuses the field `name` by what it must be, unless `holds`."""
  if not holds:
    raise ValueError(f'rl.{name} = {getattr(config, name)!r} must be {remedy}.')


def _check_reward(config: RLConfig) -> None:
  _require(
    0 <= config.overlong_buffer < config.max_new_tokens,
    config,
    'overlong_buffer',
    f'0 (no penalty) or below max_new_tokens = {config.max_new_tokens}',
  )
  _require(
    config.reward in ('promotion', 'auc', 'ndcg'),
    config,
    'reward',
    "'promotion', 'auc' or 'ndcg'",
  )
  _require(
    config.invalid in (-1, 0),
    config,
    'invalid',
    '-1 or 0: what an answer that is no permutation is paid',
  )
  _require(
    config.credit == 'answer'
    or (config.credit == 'causal' and config.constrain),
    config,
    'credit',
    "'answer', or 'causal' with rl.constrain: without it, what follows the "
    'true item decides whether the answer is valid',
  )
  _require(
    config.credit == 'answer' or config.reward == 'promotion',
    config,
    'credit',
    f"'answer' where rl.reward = {config.reward!r}: the whole list is rewarded",
  )


def _check_sampling(config: RLConfig) -> None:
  """Checks what concerns rounds, the buffer and old log-probs."""
  _require(
    config.over_sampling >= 1
    and config.prompts_per_round
    == config.over_sampling * config.prompts_per_step,
    config,
    'over_sampling',
    'at least 1, and give whole prompts: times prompts_per_step = '
    f'{config.prompts_per_step} it is '
    f'{config.over_sampling * config.prompts_per_step}',
  )
  _require(config.max_staleness >= 0, config, 'max_staleness', 'at least 0')
  for name in ('max_rounds', 'over_sampling'):
    _require(
      config.dynamic_sampling or getattr(config, name) == 1,
      config,
      name,
      '1 without dynamic_sampling: every group is kept, and more prompts '
      'would be drawn for nothing',
    )
  _require(
    config.old_logps in ('sampler', 'recomputed'),
    config,
    'old_logps',
    "'sampler' or 'recomputed'",
  )
  _require(
    config.tis_cap == 0
    or (config.tis_cap > 0 and config.old_logps == 'recomputed'),
    config,
    'tis_cap',
    "0, or above 0 with old_logps = 'recomputed': with the sampler's, the "
    'ratio is the correction',
  )


def _check_loss(config: RLConfig) -> None:
  """Checks the terms of the loss, and the model that it starts from."""
  _require(
    config.loss_level in ('token', 'sequence'),
    config,
    'loss_level',
    "'token' or 'sequence'",
  )
  for name in ('reward_weight', 'kl', 'entropy_bonus'):
    _require(getattr(config, name) >= 0, config, name, 'at least 0')
  _require(
    config.reward_weight > 0 or config.kl > 0,
    config,
    'reward_weight',
    'above 0, or rl.kl be: nothing would be learned',
  )
  _require(
    (config.kl > 0) == bool(config.reference),
    config,
    'reference',
    f'a model exactly where rl.kl = {config.kl} is above 0',
  )
  _require(
    not config.kl or config.credit == 'answer',
    config,
    'credit',
    "'answer' with rl.kl: the policy is held to the reference behind the true "
    'item, too',
  )
  _require(
    config.start in ('sft', 'midtrain'), config, 'start', "'sft' or 'midtrain'"
  )


def _check_rankings(config: RLConfig) -> None:
  """Checks what concerns rankings that are drawn from utilities."""
  _require(
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
  _require(even(config.rankings), config, 'rankings', halves)
  parts = config.updates_per_rollout * config.microbatches
  multiple = f'a multiple of updates_per_rollout * microbatches = {parts}'
  lists, explained = config.lists_per_step, config.explained_per_step
  _require(
    lists >= 1 and lists % parts == 0, config, 'lists_per_step', multiple
  )
  _require(
    explained >= 0 and explained % parts == 0,
    config,
    'explained_per_step',
    f'0 (none) or {multiple}',
  )
  _require(
    not explained or even(config.group_size),
    config,
    'group_size',
    f'{halves}; or explained_per_step = {explained} be 0',
  )


def check_mesh(
  config: RLConfig,
  parts: int,
  ranking: Literal['list', 'likelihood'] = 'list',
) -> None:
  """Refuses batches that do not divide by the devices.

  Args:
    config: the settings.
    parts: devices over which a batch is split.
    ranking: `answer.ranking`, which says what a batch is of.

  Raises:
    ValueError: a micro-batch, or a round's prompts, do not divide by `parts`.
  """
  names = ['prompts_per_step']
  if ranking == 'likelihood':
    names = ['lists_per_step', 'explained_per_step']
  split = config.updates_per_rollout * config.microbatches
  for name in names:
    size = getattr(config, name) // split
    if size % parts:
      raise ValueError(
        f'rl.{name} = {getattr(config, name)} in {split} parts gives {size} '
        f'at a time, which do not divide by the {parts} devices that split a '
        f'batch: make it a multiple of {split * parts}.'
      )
  if ranking == 'list' and config.prompts_per_round % parts:
    raise ValueError(
      f'rl.over_sampling = {config.over_sampling} gives '
      f'{config.prompts_per_round} prompts a round, which do not divide by the '
      f'{parts} devices that split a batch: choose another factor.'
    )
