"""Language-model training as mid-training and SFT share it."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from gr2_jax import processes, sharding
from gr2_jax.data import pipeline, seeded, shards
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import flops, loss
from gr2_jax.train import loop, metrics, optimiser, state, step, writers
from gr2_jax.train.retention import Policy


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """One phase of training; defaults are our choice unless marked.

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
      latest ones.
    shards: examples are made once and written to so many ArrayRecord files for
      each task; 0 makes them when they are read.
    workers: processes that read, pack and stack ahead of the step, beside the
      training process; they need shards. 0 does it in between.
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
  max_skipped: int = 3
  keep_best: bool = True
  shards: int = 0
  workers: int = 0

  def __post_init__(self):
    if self.max_skipped < 1:
      raise ValueError(
        f'max_skipped = {self.max_skipped}: give at least 1, which ends '
        'training at the first step that is not finite.'
      )
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
  workers: int = 0,
) -> pipeline.LMIterator:
  return pipeline.lm_iterator(
    sources,
    weights,
    cfg.length,
    cfg.batch_size,
    seed,
    num_epochs=num_epochs,
    workers=workers,
  )


def _with_dropout(
  config: lm_config.LMConfig, cfg: TrainConfig
) -> lm_config.LMConfig:
  if config.dropout:
    raise ValueError(
      f'lm.dropout = {config.dropout}: dropout belongs to a phase of training; '
      'set midtrain.all.dropout or sft.train.dropout.'
    )
  return dataclasses.replace(config, dropout=cfg.dropout)


def _with_best(policy: Policy, cfg: TrainConfig) -> Policy:
  best = '-valid_nll' if cfg.keep_best else ''
  return dataclasses.replace(policy, best=best)


def _training_batches(
  sources: Mapping[str, pipeline.Source],
  weights: Mapping[str, float],
  cfg: TrainConfig,
  seed: int,
  directory: pathlib.Path,
) -> pipeline.LMIterator:
  """Returns endless batches; with shards, of files in `directory/examples/`."""
  if cfg.shards:
    folder = directory / 'examples'
    for name, source in sources.items():
      count = min(cfg.shards, len(source))
      processes.on_first(shards.write, source, folder / name, count)
    sources = {name: shards.Shards(folder / name) for name in sources}
  return _batches(sources, weights, cfg, seed, workers=cfg.workers)


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
  policy: Policy | None = None,
  tracking: writers.Tracking | None = None,
) -> Any:
  """Trains on a weighted mixture of sources; resumes where it was killed.

  Args:
    cfg: the phase.
    config: shape of the model.
    params: what to start from, on the mesh.
    sources: examples by task.
    weights: share of each task.
    directory: gets `checkpoints/`, `metrics.jsonl` and `timing.jsonl`.
    mesh: the mesh.
    seed: of the data order.
    desc: what the progress bar says.
    trainable: what is trained; see `optimiser.make`.
    evaluate: state -> numbers to record at each checkpoint.
    policy: what the checkpoints must agree with.
    tracking: see `loop.fit`.

  Returns:
    The parameters after the last step.
  """
  batches = _training_batches(sources, weights, cfg, seed, directory)
  shape = _with_dropout(config, cfg)
  tx = optimiser.make(cfg.optimiser, trainable)
  loss_fn = named_loss(shape, sorted(sources))
  step_fn = step.make_train_step(loss_fn, tx, cfg.microbatches)
  trained = loop.fit(
    state.create(params, tx, mesh),
    step_fn,
    _seeded(batches, cfg, seed),
    cfg.steps,
    directory,
    mesh,
    ckpt_every=cfg.ckpt_every,
    log_every=cfg.log_every,
    desc=desc,
    evaluate=evaluate,
    max_skipped=cfg.max_skipped,
    policy=_with_best(policy or Policy(), cfg),
    work=_work(config, tx, params),
    tracking=tracking,
  )
  return trained.params


def _seeded(batches: pipeline.LMIterator, cfg: TrainConfig, seed: int) -> Any:
  """Gives batches the seeds of their dropout, where there is any."""
  return seeded.Seeded(batches, seed) if cfg.dropout else batches


def _work(
  config: lm_config.LMConfig, tx: optimiser.Optimiser, params: Any
) -> Callable[[Any], dict[str, float]]:
  trained = jax.tree_util.tree_leaves_with_path(tx.split(params)[0])
  kernels = any(path[-1].key == 'kernel' for path, _ in trained)
  return lambda batch: flops.of_batch(config, batch, kernels)


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
