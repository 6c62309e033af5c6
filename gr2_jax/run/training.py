"""Language-model training as mid-training and SFT share it."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gr2_jax import files, processes, sharding
from gr2_jax.data import pipeline
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import flops, loss
from gr2_jax.run import phase
from gr2_jax.train import loop, metrics, optimiser, state, step, writers
from gr2_jax.train.retention import Policy


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


def _with_best(policy: Policy, cfg: phase.TrainConfig) -> Policy:
  best = '-valid_nll' if cfg.keep_best else ''
  return dataclasses.replace(policy, best=best)


def make_step(
  cfg: phase.TrainConfig,
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
    ValueError: the model's shape sets dropout itself.
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
  cfg: phase.TrainConfig,
  config: lm_config.LMConfig,
  params: Any,
  sources: Mapping[str, pipeline.Source],
  weights: Mapping[str, float],
  *,
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
    directory: gets `checkpoints/`, `metrics.jsonl`, `timing.jsonl` and
      `best.json`, for `best_step`.
    mesh: the mesh.
    seed: of the data order.
    desc: what the progress bar says.
    trainable: what is trained; see `optimiser.make`.
    evaluate: state -> numbers to record at each checkpoint.
    policy: what the checkpoints must agree with.
    tracking: see `loop.Loop`.

  Returns:
    The parameters of the best validated checkpoint; without `evaluate`, or
    where `cfg.keep_best` is False, those after the last step.
  """
  batches = phase.batches(sources, weights, cfg, seed, directory)
  tx, step_fn = make_step(cfg, config, sorted(sources), trainable)
  trained = loop.Loop(
    step_fn=step_fn,
    iterator=batches,
    num_steps=cfg.steps,
    directory=directory,
    mesh=mesh,
    ckpt_every=cfg.ckpt_every,
    log_every=cfg.log_every,
    desc=desc,
    evaluate=evaluate,
    max_skipped=cfg.max_skipped,
    policy=_with_best(policy or Policy(), cfg),
    work=_work(config, tx, params),
    tracking=tracking,
  ).fit(state.create(params, tx, mesh))
  found = {'best_step': int(trained.step)}
  processes.on_first(files.write_json, directory / 'best.json', found)
  return trained.params


def best_step(directory: pathlib.Path) -> dict[str, int]:
  """Returns which step a training returned, for a summary.

  Args:
    directory: that `train` was given.

  Returns:
    {'best_step': the step}; the last one where nothing was validated.
  """
  return processes.on_first(files.read_json, directory / 'best.json')


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
  cfg: phase.TrainConfig,
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
  pairs = None
  with sharding.use(mesh, sharding.TRAIN_RULES):
    for batch in phase.once(source, cfg):
      _, _, new = _scorer(config)(params, sharding.shard_batch(mesh, batch))
      new = jax.device_get(new)
      pairs = new if pairs is None else metrics.combine(pairs, new, np)
  return metrics.means(pairs)['nll']
