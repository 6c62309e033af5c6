"""Language-model training as mid-training and SFT share it."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import pipeline, seeded
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import loss
from gr2_jax.train import loop, metrics, optimiser, state, step


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """One phase of training; defaults are our choice unless marked.

  Attributes:
    steps: updates.
    batch_size: B, rows an update over all processes.
    length: T, tokens a row.
    microbatches: gradients are accumulated over this many parts of a batch.
    lr: peak learning rate. For pretrained models 1e-4 while only new rows
      train and 1e-5 after [N: OneRec-Think]; larger from scratch.
    schedule: 'constant', 'cosine' or 'linear'.
    warmup: share of the steps over which the rate rises; 0.1 [N].
    weight_decay: 0.01 [N].
    clip_norm: bound of the gradient's global norm.
    dropout: share of activations that are dropped; for models that are trained
      from scratch on few interactions.
    ckpt_every: steps between checkpoints.
    log_every: steps between lines of metrics.jsonl.
  """

  steps: int
  batch_size: int
  length: int
  lr: float
  microbatches: int = 1
  schedule: str = 'cosine'
  warmup: float = 0.1
  weight_decay: float = 0.01
  clip_norm: float = 1.0
  dropout: float = 0.0
  ckpt_every: int = 200
  log_every: int = 10

  @property
  def optimiser(self) -> optimiser.OptimiserConfig:
    """The optimiser's numbers."""
    return optimiser.OptimiserConfig(
      lr=self.lr,
      schedule=self.schedule,
      warmup_steps=int(self.warmup * self.steps),
      total_steps=self.steps,
      weight_decay=self.weight_decay,
      clip_norm=self.clip_norm,
    )


def named_loss(
  config: lm_config.LMConfig, names: list[str]
) -> Callable[[Any, Any], tuple]:
  """Returns `lm_loss` with the tasks' own names in its metrics.

  Args:
    config: shape of the model.
    names: tasks in the order of the batches' `task`.

  Returns:
    (params, batch) -> (sum, count, metrics): `nll/<task>` for each task.
  """

  def compute(params: Any, batch: Any) -> tuple:
    total, count, pairs = loss.lm_loss(config, params, batch, len(names))
    for i, name in enumerate(names):
      pairs[f'nll/{name}'] = pairs.pop(f'nll_task{i}')
    return total, count, pairs

  return compute


def _batches(
  sources: Mapping[str, pipeline.Source],
  weights: Mapping[str, float] | None,
  cfg: TrainConfig,
  seed: int,
  num_epochs: int | None = None,
) -> pipeline.LMIterator:
  """Returns this process's share of the batches."""
  processes = jax.process_count()
  if cfg.batch_size % processes:
    raise ValueError(
      f'batch_size = {cfg.batch_size} does not divide by the {processes} '
      'processes: make it a multiple.'
    )
  return pipeline.lm_iterator(
    sources,
    weights,
    cfg.length,
    cfg.batch_size // processes,
    seed,
    num_epochs=num_epochs,
    process_index=jax.process_index(),
    process_count=processes,
  )


def _training_batches(
  sources: Mapping[str, pipeline.Source],
  weights: Mapping[str, float],
  cfg: TrainConfig,
  seed: int,
) -> pipeline.LMIterator | seeded.Seeded:
  """Returns the batches, with seeds where activations are dropped."""
  batches = _batches(sources, weights, cfg, seed)
  if not cfg.dropout:
    return batches
  process = jax.process_index(), jax.process_count()
  return seeded.Seeded(batches, seed, *process)


def example(cfg: TrainConfig, names: list[str]) -> dict[str, np.ndarray]:
  """Returns a batch without content, for its shapes.

  Args:
    cfg: the phase.
    names: tasks.

  Returns:
    What a step of `make_step` reads, [B, ...] each.
  """
  row = {
    'tokens': np.zeros(cfg.length, np.int32),
    'weights': np.zeros(cfg.length, np.float32),
  }
  sources = {name: [row] for name in names}
  return next(_training_batches(sources, dict.fromkeys(names, 1.0), cfg, 0))


def make_step(
  cfg: TrainConfig,
  config: lm_config.LMConfig,
  names: list[str],
  trainable: optimiser.Trainable | None,
) -> tuple[optimiser.Optimiser, step.TrainStep]:
  """Makes optimiser and train step of a phase.

  Args:
    cfg: the phase.
    config: shape of the model.
    names: tasks in the order of the batches' `task`.
    trainable: what is trained; see `optimiser.make`.

  Returns:
    (optimiser, step).

  Raises:
    ValueError: the model's shape brings dropout of its own.
  """
  if config.dropout:
    raise ValueError(
      f'lm.dropout = {config.dropout}: dropout belongs to a phase of training; '
      'set midtrain.all.dropout or sft.train.dropout.'
    )
  shape = dataclasses.replace(config, dropout=cfg.dropout)
  tx = optimiser.make(cfg.optimiser, trainable)
  loss_fn = named_loss(shape, names)
  return tx, step.make_train_step(loss_fn, tx, cfg.microbatches)


def train(
  cfg: TrainConfig,
  config: lm_config.LMConfig,
  params: Any,
  sources: Mapping[str, pipeline.Source],
  weights: Mapping[str, float],
  directory: pathlib.Path,
  mesh: jax.sharding.Mesh,
  seed: int,
  desc: str,
  trainable: optimiser.Trainable | None = None,
  evaluate: Callable[[Any], dict] | None = None,
) -> Any:
  """Trains on a weighted mixture of sources; resumes where it was killed.

  Args:
    cfg: the phase.
    config: shape of the model.
    params: what to start from, on the mesh.
    sources: examples by task.
    weights: share of each task.
    directory: gets `checkpoints/` and `metrics.jsonl`.
    mesh: the mesh.
    seed: of the data order.
    desc: what the progress bar says.
    trainable: what is trained; see `optimiser.make`.
    evaluate: state -> numbers to record at each checkpoint.

  Returns:
    The parameters after the last step.
  """
  batches = _training_batches(sources, weights, cfg, seed)
  tx, step_fn = make_step(cfg, config, sorted(sources), trainable)
  trained = loop.fit(
    state.create(params, tx, mesh),
    step_fn,
    batches,
    cfg.steps,
    directory,
    mesh,
    ckpt_every=cfg.ckpt_every,
    log_every=cfg.log_every,
    desc=desc,
    evaluate=evaluate,
  )
  return trained.params


@functools.lru_cache(maxsize=8)
def _scorer(config: lm_config.LMConfig) -> Callable:
  return jax.jit(named_loss(config, ['it']))


def mean_nll(
  config: lm_config.LMConfig,
  params: Any,
  source: pipeline.Source,
  cfg: TrainConfig,
  mesh: jax.sharding.Mesh,
) -> float:
  """Returns the mean negative log-likelihood of a source's scored tokens.

  Args:
    config: shape of the model.
    params: its parameters.
    source: examples; all of them are read once.
    cfg: gives the shape of the batches.
    mesh: the mesh.

  Returns:
    Nats a token.
  """
  batches = _batches({'it': source}, None, cfg, seed=0, num_epochs=1)
  pairs = None
  with sharding.use(mesh, sharding.TRAIN_RULES):
    for batch in batches:
      _, _, new = _scorer(config)(params, sharding.shard_batch(mesh, batch))
      new = jax.device_get(new)
      pairs = new if pairs is None else metrics.combine(pairs, new)
  return metrics.means(pairs)['nll']
