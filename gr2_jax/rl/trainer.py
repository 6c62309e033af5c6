"""One RL step: rounds of rollouts until the buffer is full, then updates.

The prompts of all rounds are read at each step, used or not, so that the place
in the data depends on the step alone and a resumed run equals an undisturbed
one.

An epoch is one pass over the prompts: as many of them, sampled one after the
other, as there are lists. After one in which no group qualified the run ends at
the next checkpoint; the log and `summary.json` (`ended`) give the reason.

The trainer of rankings (`ranking_trainer.py`) takes its optimiser, its layout
for decoding, its keys and its count of steps from here.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl import groups, objective, rollout
from gr2_jax.rl.config import RLConfig
from gr2_jax.rl.prompt_set import PromptSet
from gr2_jax.text.answer import AnswerFormat
from gr2_jax.train import metrics as metrics_lib
from gr2_jax.train import optimiser, state, step

Observer = Callable[[int, rollout.PromptBatch, rollout.Rollouts], None]


@flax.struct.dataclass
class RLState:
  """What RL carries from step to step.

  Attributes:
    step: int32 scalar, RL steps done; also what the RNG key is made of.
    train: policy and optimiser; its own step counts updates.
    buffer: groups that were left over, each with its age, and free places for
      those of a step.
  """

  step: jax.Array
  train: state.TrainState
  buffer: groups.Groups


def make_optimiser(
  config: RLConfig, trainable: optimiser.Trainable | None = None
) -> optimiser.Optimiser:
  """Returns AdamW at a constant learning rate after the warm-up.

  Args:
    config: its numbers.
    trainable: what is trained; see `optimiser.make`.
  """
  return optimiser.make(
    optimiser.OptimiserConfig(
      lr=config.lr,
      schedule='constant',
      warmup_steps=config.warmup_steps,
      weight_decay=config.weight_decay,
      clip_norm=config.clip_norm,
    ),
    trainable,
  )


def for_decoding(
  model: LMConfig, mesh: jax.sharding.Mesh
) -> Callable[[Any], tuple[LMConfig, Any]]:
  """Returns what makes a policy's parameters ready for rollouts.

  Args:
    model: shape of the LM.
    mesh: the mesh.

  Returns:
    Parameters by TRAIN_RULES -> (shape, parameters with narrow kernels by
    DECODE_RULES).
  """
  _, shardings = sharding.param_shardings(
    decoder.init_fn(model), mesh, sharding.DECODE_RULES, jax.random.key(0)
  )

  def convert(params: Any) -> tuple[LMConfig, Any]:
    shape, narrow = decoder.narrow(model, params)
    return shape, sharding.reshard(narrow, shardings)

  return convert


@functools.partial(jax.jit, static_argnames='index')
def round_key(key: jax.Array, step: jax.Array, index: int) -> jax.Array:
  """Folds step and round into a key: no two rounds share one."""
  return jax.random.fold_in(jax.random.fold_in(key, step), index)


@jax.jit
def next_step(step: jax.Array) -> jax.Array:
  """Counts a step where the count lies."""
  return step + 1


def make_update(
  model: LMConfig,
  config: RLConfig,
  fmt: AnswerFormat,
  trainable: optimiser.Trainable | None = None,
  reference: LMConfig | None = None,
) -> tuple[optimiser.Optimiser, step.TrainStep]:
  """Makes optimiser and update.

  Args:
    model: shape of the LM.
    config: settings.
    fmt: the answer format.
    trainable: what is trained; see `optimiser.make`.
    reference: shape of the frozen model of `config.kl`.

  Returns:
    (optimiser, update of a `TrainState` by a mini-batch of groups).
  """
  tx = make_optimiser(config, trainable)
  loss_fn = objective.make_loss(model, config, fmt, reference)
  return tx, step.make_train_step(loss_fn, tx, config.microbatches)


class Trainer:
  """Makes RL steps on one mesh.

  Rollouts run on parameters laid out by DECODE_RULES (no fsdp on weights),
  updates by TRAIN_RULES.
  """

  def __init__(
    self,
    model: LMConfig,
    config: RLConfig,
    fmt: AnswerFormat,
    prompts: PromptSet,
    *,
    mesh: jax.sharding.Mesh,
    seed: int,
    observe: Observer | None = None,
    trainable: optimiser.Trainable | None = None,
    reference: tuple[LMConfig, Any] | None = None,
  ):
    """Prepares the programs; nothing compiles before the first step.

    Args:
      model: shape of the LM.
      config: settings.
      fmt: the answer format.
      prompts: the lists; only their buckets, K and M are read here.
      mesh: the mesh.
      seed: of the rollouts.
      observe: called with step, lists and rollouts of each first round.
      trainable: what is trained; everything by default.
      reference: the frozen model of `config.kl` and its parameters on the mesh,
        by TRAIN_RULES.

    Raises:
      ValueError: the reference is missing, without use, or of another
        vocabulary.
    """
    _check_reference(model, config, reference)
    self._model = model
    self._config = config
    self._fmt = fmt
    self._prompts = prompts
    self._mesh = mesh
    self._observe = observe
    self._tx, self._update = make_update(
      model, config, fmt, trainable, reference and reference[0]
    )
    self._frozen = reference[1:] if reference else ()
    # On the mesh from the start: a step moves nothing there but its lists.
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    self._key = jax.jit(lambda: jax.random.key(seed), out_shardings=whole)()
    self._temperature, self._parts = sharding.replicate(
      mesh,
      (
        np.float32(config.temperature),
        [np.int32(i) for i in range(config.updates_per_rollout)],
      ),
    )
    self._for_decoding = for_decoding(model, mesh)

  def start(self, params: Any) -> RLState:
    """Returns the state before the first step; `params` are copied."""
    config = self._config
    train = state.create(params, self._tx, self._mesh)
    with sharding.use(self._mesh, sharding.TRAIN_RULES):
      # A round begins with Q - 1 groups at most, and may keep all of its own.
      buffer = groups.empty(
        config.prompts_per_step + config.prompts_per_round,
        config.group_size,
        config.max_new_tokens,
        self._prompts.ids,
        self._prompts.buckets[-1],
      )
    zero = sharding.replicate(self._mesh, np.int32(0))
    return RLState(step=zero, train=train, buffer=buffer)

  def step(
    self, before: RLState, rounds: Sequence[rollout.PromptBatch]
  ) -> tuple[RLState, dict]:
    """Makes one RL step; `before` is donated.

    Groups that were left over come first. A step that they fill samples none.

    Args:
      before: the state.
      rounds: the lists of each possible round, on the mesh.

    Returns:
      (state after, metrics of pairs (sum, count)); those of times, named
      `timing/...`, are `tokens_per_second` (of answers), and what rollouts and
      updates take a step.
    """
    started = time.monotonic()
    buffer, metrics = self._fill(before, rounds)
    filled = time.monotonic()
    train, more = self._learn(before.train, buffer)
    with sharding.use(self._mesh, sharding.TRAIN_RULES):
      buffer, left = groups.carry(
        buffer, self._config.prompts_per_step, self._config.max_staleness
      )
    jax.block_until_ready(train.params)
    ended = time.monotonic()
    if 'answer_tokens' in metrics:
      tokens = float(jax.device_get(metrics['answer_tokens'][0]))
      metrics['timing/tokens_per_second'] = (tokens, ended - started)
    metrics |= more | left
    metrics['timing/rollout_seconds'] = (filled - started, 1.0)
    metrics['timing/update_seconds'] = (ended - filled, 1.0)
    return RLState(next_step(before.step), train, buffer), metrics

  def ranks(self, params: Any, lists: rollout.PromptBatch) -> tuple[Any, Any]:
    """Decodes greedily; see `rollout.greedy_ranks`."""
    model, params = self._for_decoding(params)
    with sharding.use(self._mesh, sharding.DECODE_RULES):
      return rollout.greedy_ranks(model, self._config, self._fmt, params, lists)

  def _fill(
    self, before: RLState, rounds: Sequence[rollout.PromptBatch]
  ) -> tuple[groups.Groups, dict]:
    """Rolls out until the buffer is full or the rounds are used up."""
    config, size = self._config, self._config.prompts_per_step
    model, params = self._for_decoding(before.train.params)
    buffer, metrics, used = before.buffer, {}, 0
    with sharding.use(self._mesh, sharding.DECODE_RULES):
      fill, _ = _numbers(groups.count(buffer, size))
      for lists in rounds:
        if fill == size:
          break
        rollouts = rollout.roll_out(
          model,
          config,
          self._fmt,
          params,
          lists,
          key=round_key(self._key, before.step, used),
          temperature=self._temperature,
          num_samples=config.group_size,
        )
        if self._observe is not None and not used:
          self._observe(*_numbers((before.step,)), lists, rollouts)
        buffer = groups.fill(buffer, rollouts.groups)
        pairs = jax.device_get(rollout.summarise(rollouts))
        metrics = metrics_lib.combine(metrics, pairs, np)
        fill, _ = _numbers(groups.count(buffer, size))
        used += 1
    metrics['fill_rate'] = (float(fill), float(size))
    metrics['rounds'] = (float(used), 1.0)
    return buffer, metrics

  def _learn(
    self, train: state.TrainState, buffer: groups.Groups
  ) -> tuple[state.TrainState, dict]:
    """Makes an update on each mini-batch that holds a group.

    `sampler_gap` is that of the first one, when nothing was learned yet.
    """
    config, size = self._config, self._config.prompts_per_step
    metrics = {}
    with sharding.use(self._mesh, sharding.TRAIN_RULES):
      fill, longest = _numbers(groups.count(buffer, size))
      bucket = self._prompts.bucket(longest)
      # Every n-th group is in a part of n: the first `fill` parts have some.
      batches = [
        groups.part(buffer, index, size, len(self._parts), bucket)
        for index in self._parts[:fill]
      ]
      if config.old_logps == 'recomputed':
        given = self._model, config, self._fmt, train.params
        batches = [objective.recompute(*given, batch) for batch in batches]
      for batch in batches:
        train, pairs = self._update(train, batch, *self._frozen)
        pairs = jax.device_get(pairs)
        if metrics:
          del pairs['sampler_gap']
        metrics = metrics_lib.combine(metrics, pairs, np)
    return train, metrics


def barren_prompts(
  records: Sequence[Mapping[str, float]], config: RLConfig
) -> int:
  """Counts the prompts sampled since a group last qualified.

  Args:
    records: of `metrics.jsonl`, whose values are means over steps.
    config: the settings of the run.

  Returns:
    The count; exact where each step has its record, and at most the steps of a
    record too low.
  """
  count, before = 0, 0
  for record in records:
    if 'rounds' not in record:
      continue
    rounds = record['rounds'] * (record['step'] - before)
    count += round(rounds * config.prompts_per_round)
    before = record['step']
    if record['fill_rate'] > 0:
      count = 0
  return count


def barren_message(
  count: int, steps: int, updates: int, config: RLConfig
) -> str:
  """Explains that a run ended because no group qualified.

  Args:
    count: of `barren_prompts`.
    steps: RL steps done.
    updates: updates that the weights have seen.
    config: the settings of the run.
  """
  return (
    f'RL ended after {steps} of {config.steps} steps and {updates} updates: '
    f'among the answers to the last {count} prompts no group had rank rewards '
    'that differ, so nothing could be learned, and the weights are those of '
    'an earlier update. Raise rl.group_size or rl.temperature, or check '
    'valid_rate and identity_rate in metrics.jsonl: the policy answers all '
    'alike.'
  )


def _numbers(arrays: Sequence[jax.Array]) -> list[int]:
  """Reads scalars of the device, of which all processes have a copy."""
  return [int(x) for x in jax.device_get(arrays)]


def _check_reference(
  model: LMConfig, config: RLConfig, reference: tuple[LMConfig, Any] | None
) -> None:
  if (reference is not None) != (config.kl > 0):
    raise ValueError(
      f'rl.kl = {config.kl}, but a reference model is '
      f'{"missing" if reference is None else "given"}: give one exactly where '
      'rl.kl is above 0.'
    )
  if reference and reference[0].vocab_size != model.vocab_size:
    raise ValueError(
      f'The reference model has a vocabulary of {reference[0].vocab_size}, the '
      f'policy of {model.vocab_size}: their tokens cannot be compared. Give a '
      'reference (rl.reference) that was made with the vocabulary of this run.'
    )
