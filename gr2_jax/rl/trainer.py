"""One RL step: rounds of rollouts until the buffer is full, then updates."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
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

# What an update reports; a step without any counts them nowhere.
_UPDATE = (
  'loss', 'grad_norm', 'lr', 'clip_fraction', 'ratio', 'logp_gap', 'entropy',
)  # fmt: skip

Observer = Callable[[int, rollout.Lists, rollout.Rollouts], None]


@flax.struct.dataclass
class RLState:
  """What RL carries from step to step; the buffer starts each step empty.

  Attributes:
    step: int32 scalar, RL steps done; also what the RNG key is made of.
    train: policy and optimiser; its own step counts updates.
  """

  step: jax.Array
  train: state.TrainState


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
    mesh: jax.sharding.Mesh,
    seed: int,
    observe: Observer | None = None,
    trainable: optimiser.Trainable | None = None,
  ):
    """Prepares the programs; nothing compiles before the first step.

    Args:
      model: shape of the LM.
      config: settings.
      fmt: the answer format.
      prompts: the lists; only their buckets are read here.
      mesh: the mesh.
      seed: of the rollouts.
      observe: called with step, lists and rollouts of each first round.
      trainable: what is trained; everything by default.
    """
    self._model = model
    self._config = config
    self._fmt = fmt
    self._prompts = prompts
    self._mesh = mesh
    self._key = jax.random.key(seed)
    self._observe = observe
    self._tx = make_optimiser(config, trainable)
    self._update = step.make_train_step(
      objective.make_loss(model, config, fmt), self._tx, config.microbatches
    )
    _, self._decode_shardings = sharding.param_shardings(
      decoder.init_fn(model), mesh, sharding.DECODE_RULES, jax.random.key(0)
    )

  def start(self, params: Any) -> RLState:
    """Returns the state before the first step; `params` are copied."""
    train = state.create(params, self._tx, self._mesh)
    zero = jax.device_put(np.int32(0), train.step.sharding)
    return RLState(step=zero, train=train)

  def step(
    self, before: RLState, rounds: Sequence[rollout.Lists]
  ) -> tuple[RLState, dict]:
    """Makes one RL step; `before` is donated.

    Args:
      before: the state.
      rounds: the lists of each possible round, on the mesh.

    Returns:
      (state after, metrics of pairs (sum, count)).
    """
    number = int(before.step)
    started = time.monotonic()
    buffer, metrics = self._fill(number, before.train.params, rounds)
    filled = time.monotonic()
    train, more = self._learn(before.train, buffer)
    jax.block_until_ready(train.params)
    ended = time.monotonic()
    tokens = float(metrics['answer_tokens'][0])
    metrics.update(more)
    metrics['tokens_per_second'] = (tokens, ended - started)
    metrics['rollout_seconds'] = (filled - started, 1.0)
    metrics['update_seconds'] = (ended - filled, 1.0)
    return RLState(step=before.step + 1, train=train), metrics

  def ranks(self, params: Any, lists: rollout.Lists) -> tuple[Any, Any]:
    """Decodes greedily; see `rollout.greedy_ranks`."""
    model, params = self._for_decoding(params)
    with sharding.use(self._mesh, sharding.DECODE_RULES):
      return rollout.greedy_ranks(model, self._config, self._fmt, params, lists)

  def _for_decoding(self, params: Any) -> tuple[LMConfig, Any]:
    """Narrows the kernels, and lays them out by DECODE_RULES."""
    model, params = decoder.narrow(self._model, params)
    return model, sharding.reshard(params, self._decode_shardings)

  def _fill(
    self, number: int, params: Any, rounds: Sequence[rollout.Lists]
  ) -> tuple[groups.Groups, dict]:
    """Rolls out until the buffer is full or the rounds are used up."""
    config = self._config
    model, params = self._for_decoding(params)
    key = jax.random.fold_in(self._key, number)
    buffer, metrics, fill, used = None, None, 0, 0
    with sharding.use(self._mesh, sharding.DECODE_RULES):
      for lists in rounds:
        rollouts = rollout.roll_out(
          model,
          config,
          self._fmt,
          params,
          lists,
          jax.random.fold_in(key, used),
          jnp.float32(config.temperature),
          config.group_size,
        )
        if self._observe is not None and not used:
          self._observe(number, lists, rollouts)
        if buffer is None:
          longest = self._prompts.buckets[-1]
          buffer = groups.empty(rollouts.groups, longest)
        buffer = groups.fill(buffer, rollouts.groups)
        pairs = rollout.summarise(rollouts)
        metrics = metrics_lib.combine(metrics, pairs) if metrics else pairs
        fill = int(buffer.weight.sum())
        used += 1
        if fill == config.prompts_per_step:
          break
    metrics['fill_rate'] = (float(fill), float(config.prompts_per_step))
    metrics['rounds'] = (float(used), 1.0)
    return buffer, metrics

  def _learn(
    self, train: state.TrainState, buffer: groups.Groups
  ) -> tuple[state.TrainState, dict]:
    """Makes an update on each mini-batch that holds a group.

    `sampler_gap` is the `logp_gap` of the first one.
    """
    parts = self._config.updates_per_rollout
    fill = int(buffer.weight.sum())
    longest = int(buffer.prompt_valid.sum(-1).max())
    bucket = self._prompts.bucket(longest)
    metrics = None
    with sharding.use(self._mesh, sharding.TRAIN_RULES):
      # Every `parts`-th group is in a part: the first `fill` parts have some.
      for index in range(min(fill, parts)):
        batch = groups.part(buffer, jnp.int32(index), parts, bucket)
        train, pairs = self._update(train, batch)
        if metrics is None:
          # Nothing was learned yet: the two differ by rounding alone.
          gap = pairs['logp_gap']
          metrics = pairs
        else:
          metrics = metrics_lib.combine(metrics, pairs)
    if metrics is None:
      metrics = {name: (0.0, 0.0) for name in _UPDATE}
      extremes = {'ratio_min': (1.0, 1.0), 'ratio_max': (1.0, 1.0)}
      return train, {**metrics, **extremes, 'sampler_gap': (0.0, 0.0)}
    return train, {**metrics, 'sampler_gap': gap}
