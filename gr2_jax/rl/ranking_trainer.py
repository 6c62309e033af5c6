"""RL steps on rankings: many lists a step, since a ranking costs one pass."""

import time
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.decode import sampler
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import heads
from gr2_jax.rl import ranking_loss, rankings, trainer
from gr2_jax.rl.config import RLConfig
from gr2_jax.rl.rollout import PromptBatch
from gr2_jax.text import lengths
from gr2_jax.text.answer import AnswerFormat
from gr2_jax.train import metrics as metrics_lib
from gr2_jax.train import optimiser, state, step


@flax.struct.dataclass
class RankingState:
  """What RL carries from step to step.

  Attributes:
    step: int32 scalar, RL steps done; also what the RNG key is made of.
    train: policy and optimiser; its own step counts updates.
  """

  step: jax.Array
  train: state.TrainState


class RankingTrainer:
  """Makes RL steps on one mesh, of lists with and without explanations."""

  def __init__(
    self,
    model: LMConfig,
    config: RLConfig,
    fmt: AnswerFormat,
    mesh: jax.sharding.Mesh,
    seed: int,
    *,
    trainable: optimiser.Trainable | None = None,
  ):
    """Prepares the programs; nothing compiles before the first step.

    Args:
      model: shape of the LM.
      config: settings.
      fmt: the answer format.
      mesh: the mesh.
      seed: of the rankings.
      trainable: which parameters of {'lm', 'head'} are trained; all by default.
    """
    self._given = model, config, fmt
    self._config, self._mesh = config, mesh
    self._tx = trainer.make_optimiser(config, trainable)
    self._update = step.make_train_step(
      ranking_loss.make_joint_loss(*self._given), self._tx, config.microbatches
    )
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    self._key = jax.jit(lambda: jax.random.key(seed), out_shardings=whole)()
    self._temperature, self._parts = sharding.replicate(
      mesh,
      (
        np.float32(config.temperature),
        [np.int32(i) for i in range(config.updates_per_rollout)],
      ),
    )
    self._for_decoding = trainer.for_decoding(model, mesh)

  def start(self, params: Any) -> RankingState:
    """Returns the state before the first step; `params` are copied."""
    train = state.create(params, self._tx, self._mesh)
    zero = sharding.replicate(self._mesh, np.int32(0))
    return RankingState(step=zero, train=train)

  def step(
    self, before: RankingState, batch: Mapping[str, PromptBatch]
  ) -> tuple[RankingState, dict]:
    """Makes one RL step; `before` is donated.

    Args:
      before: the state.
      batch: lists on the mesh: `heads.DIRECT` with direct prompts, and perhaps
        `heads.EXPLAINED` with explained ones.

    Returns:
      (state after, metrics of pairs (sum, count): those of lists with
      explanations are `explained/...`).
    """
    started = time.monotonic()
    train = before.train
    with sharding.use(self._mesh, sharding.TRAIN_RULES):
      drawn, metrics = {}, {}
      for index, (kind, lists) in enumerate(sorted(batch.items())):
        key = trainer.round_key(self._key, before.step, index)
        samples = None
        if kind == heads.EXPLAINED:
          samples = self._write(train.params['lm'], lists, key)
        drawn[kind], pairs = rankings.draw(
          *self._given, train.params, lists, key=key, samples=samples
        )
        metrics |= ranking_loss.named(kind, pairs)
      jax.block_until_ready(drawn)
      ranked = time.monotonic()
      for index in self._parts:
        part = {
          kind: rankings.part(whole, index, len(self._parts))
          for kind, whole in drawn.items()
        }
        train, pairs = self._update(train, part)
        metrics = metrics_lib.combine(metrics, jax.device_get(pairs), np)
      jax.block_until_ready(train.params)
    ended = time.monotonic()
    metrics['timing/rollout_seconds'] = (ranked - started, 1.0)
    metrics['timing/update_seconds'] = (ended - ranked, 1.0)
    return RankingState(trainer.next_step(before.step), train), metrics

  def _write(
    self, params: Any, lists: PromptBatch, key: jax.Array
  ) -> sampler.Samples:
    """Samples the words of G explanations of each list."""
    config = self._config
    model, params = self._for_decoding(params)
    with sharding.use(self._mesh, sharding.DECODE_RULES):
      return sampler.sample(
        model,
        params,
        lists.prompt,
        lists.prompt_valid,
        key,
        num_samples=config.group_size,
        max_new_tokens=lengths.words(config.explanation_tokens),
        temperature=self._temperature,
        fmt=self._given[2],
        items=lists.items,
        constrain=True,
        explanation_tokens=config.explanation_tokens,
        words_only=True,
      )
