"""Mid-training itself, of the stage and of the folds of `stages/folds.py`."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from gr2_jax import bounds
from gr2_jax import config as config_lib
from gr2_jax.data import pipeline
from gr2_jax.data import splits as splits_lib
from gr2_jax.lm import config as lm_config
from gr2_jax.run import artifacts, pretrained, training
from gr2_jax.run import phase as phase_lib
from gr2_jax.text import tasks as tasks_lib
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.train import optimiser, writers
from gr2_jax.train.retention import Policy


@dataclasses.dataclass(frozen=True)
class MidtrainConfig:
  """What mid-training does.

  The numbers of the phases are for a decoder of about two million parameters
  that is trained from scratch on a CPU [our choice].

  Attributes:
    weights: share of each task (`text/tasks.py`) in the examples drawn; 0
      leaves it out. About two thirds next item and a quarter persona in
      industry [N].
    new_rows: the phase that trains the added rows only; 0 steps skip it. It
      serves pretrained models, whose other rows know something already [N].
    all: the phase that trains everything.
    tasks: what examples look like.
    eval_examples: examples a task for the perplexities of the summary.
  """

  weights: Mapping[str, float] = dataclasses.field(
    default_factory=lambda: {
      'next_item': 0.66,
      'persona': 0.14,
      'item_text': 0.15,
      'general_text': 0.05,
    }
  )
  new_rows: phase_lib.TrainConfig = phase_lib.TrainConfig(
    steps=0, batch_size=8, length=256, lr=1e-3, schedule='constant'
  )
  all: phase_lib.TrainConfig = phase_lib.TrainConfig(
    steps=1500, batch_size=8, length=256, lr=3e-3, ckpt_every=250
  )
  tasks: tasks_lib.TaskConfig = tasks_lib.TaskConfig()
  eval_examples: int = 256

  def __post_init__(self):
    bounds.at_least(self, 1, 'eval_examples')
    unknown = sorted(set(self.weights) - set(tasks_lib.NAMES))
    if unknown:
      raise ValueError(
        f'midtrain.weights names {unknown}; the tasks are {tasks_lib.NAMES}.'
      )


@dataclasses.dataclass(frozen=True)
class Training:
  """One mid-training: that of the stage, or that of a fold of users.

  Attributes:
    config: of the run.
    store: what earlier stages wrote; its vocabulary need not be there yet.
    vocab: the vocabulary.
    splits: what is trained on, and what the loss is validated on.
    directory: gets what training leaves behind.
    mesh: the mesh.
    seed: of the data order.
    desc: what the progress bars say.
    policy: what the checkpoints must agree with.
    tracking: how training is watched.
    share: of the steps that the config asks for.
  """

  config: ml_collections.ConfigDict
  store: artifacts.Artifacts
  vocab: vocab_lib.Vocab
  splits: splits_lib.Splits
  directory: pathlib.Path
  mesh: jax.sharding.Mesh
  seed: int
  desc: str
  policy: Policy
  tracking: writers.Tracking
  share: float = 1.0

  @functools.cached_property
  def cfg(self) -> MidtrainConfig:
    """The settings of mid-training."""
    return config_lib.build(MidtrainConfig, self.config.midtrain)

  @functools.cached_property
  def first(self) -> phase_lib.TrainConfig:
    """The phase that trains new rows only; 0 steps skip it."""
    return self._phase(self.cfg.new_rows)

  @functools.cached_property
  def phase(self) -> phase_lib.TrainConfig:
    """The phase that trains everything."""
    return self._phase(self.cfg.all)

  @functools.cached_property
  def held_out(self) -> tasks_lib.Examples:
    """What the loss is validated on."""
    return _held_out(
      self.store, self.splits, self.vocab, self.cfg.eval_examples
    )

  @functools.cached_property
  def sources(self) -> dict[str, tasks_lib.Examples]:
    """Examples of the tasks that have a weight."""
    made = _sources(
      self.cfg, self.store, self.splits, self.vocab, self.phase.length
    )
    return {name: made[name] for name in self._weights}

  @property
  def _weights(self) -> dict[str, float]:
    return {name: w for name, w in self.cfg.weights.items() if w > 0}

  def _phase(self, cfg: phase_lib.TrainConfig) -> phase_lib.TrainConfig:
    if not cfg.steps:
      return cfg
    steps = max(1, round(self.share * cfg.steps))
    return dataclasses.replace(cfg, steps=steps)

  def run(self, shape: lm_config.LMConfig, params: Any) -> Any:
    """Trains, or resumes a training that was cut off.

    Args:
      shape: of the model.
      params: what to start from.

    Returns:
      The parameters after the last step.
    """
    watched = {'policy': self.policy, 'tracking': self.tracking}
    if self.first.steps:
      params = training.train(
        self.first,
        shape,
        params,
        self.sources,
        self._weights,
        directory=self.directory / 'new_rows',
        mesh=self.mesh,
        seed=self.seed + 1,
        desc=f'{self.desc}, new rows',
        trainable=optimiser.new_rows(self.vocab.text_size),
        **watched,
      )

    def evaluate(state) -> dict:
      return {'valid_nll': self.nll(shape, state.params, self.held_out)}

    return training.train(
      self.phase,
      shape,
      params,
      self.sources,
      self._weights,
      directory=self.directory,
      mesh=self.mesh,
      seed=self.seed + 2,
      desc=self.desc,
      trainable=pretrained.trainable(shape, self.vocab),
      evaluate=evaluate,
      **watched,
    )

  def nll(
    self, shape: lm_config.LMConfig, params: Any, source: pipeline.Source
  ) -> float:
    """Returns the mean loss of a source's scored tokens, nats a token."""
    return training.mean_nll(shape, params, source, self.phase, self.mesh)


def _held_out(
  store: artifacts.Artifacts,
  splits: splits_lib.Splits,
  vocab: vocab_lib.Vocab,
  limit: int,
) -> tasks_lib.Examples:
  """Next-item examples whose one scored item is a validation target."""
  user, position = splits.examples['valid']
  rows = np.random.default_rng(0).permutation(len(user))[:limit]

  def make(index: int) -> dict:
    u, p = int(user[rows[index]]), int(position[rows[index]])
    prompt = store.prompter.retrieval(store.history(u, p))
    target = vocab.sid_tokens(store.sids[store.dataset.sequence(u)[p]])
    tokens = np.array([*prompt, *target], np.int32)
    weights = np.zeros(len(tokens), np.float32)
    weights[len(prompt) :] = 1
    return {'tokens': tokens, 'weights': weights}

  return tasks_lib.Examples('held_out', len(rows), make)


def next_items(
  config: ml_collections.ConfigDict, store: artifacts.Artifacts, length: int
) -> tasks_lib.Examples:
  """Makes mid-training's next-item examples once more: what SFT replays.

  Args:
    config: of the run.
    store: what earlier stages wrote.
    length: tokens of a row.
  """
  cfg = config_lib.build(MidtrainConfig, config.midtrain)
  given = cfg, store, store.splits, store.vocab, length
  return _sources(*given)['next_item']


def _sources(
  cfg: MidtrainConfig,
  store: artifacts.Artifacts,
  splits: splits_lib.Splits,
  vocab: vocab_lib.Vocab,
  length: int,
) -> dict[str, tasks_lib.Examples]:
  """Makes the tasks, whether they have a weight or not."""
  return tasks_lib.make(
    store.dataset,
    splits,
    store.sids,
    vocab,
    prompt=store.prompt,
    length=length,
    cfg=cfg.tasks,
  )
