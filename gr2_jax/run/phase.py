"""One phase of language-model training: its settings and its batches."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Literal

import numpy as np

from gr2_jax import bounds, processes
from gr2_jax.data import pipeline, seeded, shards
from gr2_jax.train import optimiser


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """One phase of training; defaults are our choice unless marked.

  Steps, rows, lengths and rates are set where a phase is.

  Attributes:
    steps: updates.
    batch_size: B, rows an update.
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
    max_skipped: steps in a row whose loss or gradient is not finite, and whose
      update is skipped for it, after which training ends.
    keep_best: the checkpoint with the best validation stays, beside the two
      latest ones, and is the result of the phase; False takes the last step.
    shards: ArrayRecord files of each task, to which examples are written once;
      0 makes examples when they are read.
    workers: processes that read, pack and stack ahead of the step, beside the
      training process; they need shards. 0 does this in the training process.
  """

  steps: int
  batch_size: int
  length: int
  lr: float
  microbatches: int = 1
  schedule: Literal['constant', 'cosine', 'linear'] = 'cosine'
  warmup: float = 0.1
  weight_decay: float = 0.01
  clip_norm: float = 1.0
  dropout: float = 0.0
  ckpt_every: int = 200
  log_every: int = 10
  max_skipped: int = 3
  keep_best: bool = True
  shards: int = 0
  workers: int = 0

  def __post_init__(self):
    sizes = ('batch_size', 'length', 'microbatches')
    often = ('ckpt_every', 'log_every', 'max_skipped')
    bounds.at_least(self, 1, *sizes, *often)
    rates = ('lr', 'weight_decay', 'clip_norm')
    bounds.at_least(self, 0, 'steps', *rates)
    bounds.share(self, 'warmup')
    bounds.share(self, 'dropout', whole=False)
    if self.steps:
      _ = self.optimiser  # Checks what joins its numbers.
    if self.shards < 0 or self.workers < 0 or self.workers and not self.shards:
      raise ValueError(
        f'shards = {self.shards} and workers = {self.workers}: worker '
        'processes read shards; set shards to 1 or more, such as twice the '
        'workers, or workers to 0.'
      )

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


def _batches(
  sources: Mapping[str, pipeline.Source],
  weights: Mapping[str, float] | None,
  cfg: TrainConfig,
  *,
  seed: int,
  num_epochs: int | None = None,
  workers: int = 0,
) -> pipeline.LMIterator:
  return pipeline.lm_iterator(
    sources,
    weights,
    cfg.length,
    cfg.batch_size,
    seed=seed,
    num_epochs=num_epochs,
    workers=workers,
  )


def _seeded(
  made: pipeline.LMIterator, cfg: TrainConfig, seed: int
) -> pipeline.LMIterator | seeded.Seeded:
  """Gives batches the seeds of their dropout, where there is any."""
  return seeded.Seeded(made, seed) if cfg.dropout else made


def batches(
  sources: Mapping[str, pipeline.Source],
  weights: Mapping[str, float],
  cfg: TrainConfig,
  seed: int,
  directory: pathlib.Path,
) -> pipeline.LMIterator | seeded.Seeded:
  """Returns endless batches, with seeds where activations are dropped.

  Args:
    sources: examples by task.
    weights: share of each task.
    cfg: the phase.
    seed: of the data order.
    directory: with shards, gets `examples/`, and they are read from there.
  """
  if cfg.shards:
    folder = directory / 'examples'
    for name, source in sources.items():
      count = min(cfg.shards, len(source))
      processes.on_first(shards.write, source, folder / name, count)
    sources = {name: shards.Shards(folder / name) for name in sources}
  made = _batches(sources, weights, cfg, seed=seed, workers=cfg.workers)
  return _seeded(made, cfg, seed)


def example(cfg: TrainConfig, names: list[str]) -> dict[str, np.ndarray]:
  """Returns a batch without content, for its shapes.

  Args:
    cfg: the phase.
    names: tasks.

  Returns:
    What a step of `training.make_step` reads, [B, ...] each.
  """
  row = {
    'tokens': np.zeros(cfg.length, np.int32),
    'weights': np.zeros(cfg.length, np.float32),
  }
  sources = {name: [row] for name in names}
  made = _batches(sources, dict.fromkeys(names, 1.0), cfg, seed=0)
  return next(_seeded(made, cfg, seed=0))


def once(source: pipeline.Source, cfg: TrainConfig) -> pipeline.LMIterator:
  """Returns batches that hold each example of a source once.

  Args:
    source: examples.
    cfg: gives the shape of the batches.
  """
  return _batches({'it': source}, None, cfg, seed=0, num_epochs=1)
