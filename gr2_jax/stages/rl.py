"""Reinforcement learning by DAPO on the training candidates (GR2, stage 3).

Reads the lists that hold their target, the SFT model (or, by `rl.start`, the
mid-trained one) and the reference model, if any; writes checkpoints,
`metrics.jsonl`, `timing.jsonl`, sampled groups in `rollouts.jsonl`, and the
model.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from gr2_jax import config as config_lib
from gr2_jax import files, processes, sharding
from gr2_jax.lm import io
from gr2_jax.rank import metrics
from gr2_jax.ranker import ranking
from gr2_jax.rl import config as rl_config
from gr2_jax.rl import prompt_set, trainer
from gr2_jax.run import artifacts, pretrained, runner
from gr2_jax.stages import list_prompts, rankings, reference, rollout_log
from gr2_jax.train import loop


@runner.stage(
  'rl',
  sections=('text', 'answer', 'rl'),
  inputs=reference.inputs,
  external=reference.fingerprint,
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Trains a model on the rewards of its own answers."""
  cfg = config_lib.build(rl_config.RLConfig, config.rl)
  if not ranking.is_by_list(config):
    return rankings.train(cfg, config, context)
  return train(cfg, cfg.start, config, context)


def train(
  cfg: rl_config.RLConfig,
  start: str,
  config: ml_collections.ConfigDict,
  context: runner.Context,
) -> dict:
  """Trains a model, resumably, and writes what the module says.

  Args:
    cfg: the settings.
    start: the stage whose model it starts from.
    config: of the run.
    context: of the stage that trains.

  Returns:
    The stage's summary.
  """
  rl_config.check_mesh(cfg, sharding.batch_parts(context.mesh))
  store = artifacts.Artifacts(config, context.workdir)
  lists = list_prompts.rl_lists(store, cfg.lists)
  fmt = store.vocab.answer_format()
  prompts = make_prompts(store, lists, cfg.prompt_buckets)

  mesh = context.mesh
  shape, params = io.load(store.model(start), mesh, sharding.TRAIN_RULES)
  rl = trainer.Trainer(
    shape,
    cfg,
    fmt,
    prompts,
    mesh=mesh,
    seed=context.seed,
    observe=rollout_log.observer(store, lists, context.directory, cfg, mesh),
    trainable=pretrained.trainable(shape, store.vocab),
    reference=reference.load(cfg, store, mesh),
  )
  validate, baseline = _validation(store, rl, cfg, mesh)
  final = loop.Loop(
    step_fn=rl.step,
    iterator=prompt_set.RoundIterator(
      prompts, cfg.prompts_per_round, cfg.max_rounds, context.seed
    ),
    num_steps=cfg.steps,
    directory=context.directory,
    mesh=mesh,
    ckpt_every=cfg.checkpoint_every,
    log_every=cfg.log_every,
    desc=context.name,
    evaluate=validate,
    show='reward',
    stop=lambda: _barren(context.directory, cfg) >= len(lists),
    max_skipped=cfg.max_skipped,
    policy=context.policy('valid_ndcg@5' if cfg.keep_best else ''),
    tracking=context.tracking,
  ).fit(rl.start(params))
  io.save(context.directory / 'model', shape, final.train.params)
  summary = processes.on_first(_summary, context.directory, final, prompts, cfg)
  return {**summary, **baseline}


def _summary(
  directory: pathlib.Path,
  final: trainer.RLState,
  prompts: prompt_set.PromptSet,
  cfg: rl_config.RLConfig,
) -> dict:
  records = list(files.read_jsonl(directory / 'metrics.jsonl'))
  return {
    **_warning(final, records, len(prompts), cfg),
    'lists': len(prompts),
    'best_step': int(final.step),
    'updates': int(final.train.step),
    'longest_prompt': max(map(len, prompts.prompts)),
    **_ends(records),
    **_validated(records, int(final.step)),
  }


def _barren(directory: pathlib.Path, cfg: rl_config.RLConfig) -> int:
  """Counts the prompts sampled since a group last qualified."""
  path = directory / 'metrics.jsonl'
  records = list(files.read_jsonl(path)) if path.exists() else []
  return trainer.barren_prompts(records, cfg)


def _warning(
  final: trainer.RLState,
  records: list[dict],
  lists: int,
  cfg: rl_config.RLConfig,
) -> dict[str, str]:
  """Warns of a run, or of its last epoch, in which no group qualified."""
  barren = trainer.barren_prompts(records, cfg)
  updates = int(final.train.step)
  if updates and barren < lists:
    return {}
  # The best step may lie before the last one.
  steps = max([int(final.step), *(r['step'] for r in records)])
  text = trainer.barren_message(barren, steps, updates, cfg)
  logging.warning('%s', text)
  return {'ended': text}


def make_prompts(
  store: artifacts.Artifacts,
  lists: artifacts.CandidateLists,
  buckets: tuple[int, ...],
) -> prompt_set.PromptSet:
  """Writes the prompts of lists.

  Args:
    store: the run's artifacts.
    lists: candidate lists that hold their target.
    buckets: prompt lengths; empty for one.

  Returns:
    The set.
  """
  shown = [
    (store.history(user, position), candidates[candidates >= 0])
    for user, position, candidates in zip(
      lists.user, lists.position, lists.candidates, strict=True
    )
  ]
  prompts = [store.prompter.rerank(*each) for each in shown]
  return prompt_set.PromptSet(
    prompts,
    lists.candidates,
    store.sids,
    lists.target,
    pad=store.vocab.pad,
    buckets=buckets,
    grades=lists.grades,
    citable=np.stack([store.prompter.citable(*each) for each in shown]),
  )


def _validation(
  store: artifacts.Artifacts,
  rl: trainer.Trainer,
  cfg: rl_config.RLConfig,
  mesh: jax.sharding.Mesh,
) -> tuple[Callable[[Any], Mapping[str, float]] | None, dict]:
  """Returns the greedy validation, and the same numbers of the given order."""
  lists = store.lists('valid').hits()
  parts = sharding.batch_parts(mesh)
  size = min(cfg.valid_lists, len(lists)) // parts * parts
  if not size:
    return None, {}
  lists = lists.take(np.arange(size))
  prompts = make_prompts(store, lists, ())
  batch = sharding.shard_batch(mesh, prompts.batch(np.arange(size)))

  def validate(state: trainer.RLState) -> dict[str, float]:
    ranks, valid = rl.ranks(state.train.params, batch)
    ranks, valid = sharding.fetch(mesh, (ranks, valid))
    return {**_quality(ranks - 1), 'valid_valid_rate': float(valid.mean())}

  given = {f'{k}_prerank': v for k, v in _quality(lists.target).items()}
  return validate, {'valid_lists': size, **given}


def _quality(positions: np.ndarray) -> dict[str, float]:
  return {
    'valid_recall@1': float(np.mean(metrics.recall_at_k(positions, 1))),
    'valid_ndcg@5': float(np.mean(metrics.ndcg_at_k(positions, 5))),
  }


def _validated(records: list[dict], step: int) -> dict[str, float]:
  """Returns the NDCG@5 of the exported step, and of the best one."""
  name = 'valid_ndcg@5'
  found = {r['step']: round(r[name], 4) for r in records if name in r}
  if not found:
    return {}
  return {
    f'{name}_exported': found[step],
    f'{name}_best': max(found.values()),
  }


def _ends(records: list[dict]) -> dict[str, float]:
  """Returns means over the first and the last tenth of the records.

  No timings: a resumed run has the summary of an undisturbed one.
  """
  tenth = max(len(records) // 10, 1)
  names = ('reward', 'rank_reward', 'valid_rate', 'identity_rate', 'fill_rate')
  names += ('entropy', 'clip_fraction', 'answer_tokens', 'kl')
  names += ('valid_recall@1', 'valid_ndcg@5')
  ends = {}
  for name in names:
    for label, part in (('first', records[:tenth]), ('last', records[-tenth:])):
      values = [r[name] for r in part if name in r]
      if values:
        ends[f'{name}_{label}'] = round(float(np.mean(values)), 4)
  return ends
