"""Reinforcement learning by DAPO on the training candidates (GR2.md, stage 3).

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
from gr2_jax.rank import scores
from gr2_jax.rl import config as rl_config
from gr2_jax.rl import epoch, prompt_set, rollout, trainer
from gr2_jax.stages import artifacts, pretrained, reference, runner
from gr2_jax.train import loop
from gr2_jax.train.metrics import MetricsWriter


@runner.stage(
  'rl',
  sections=('text', 'rl'),
  inputs=reference.inputs,
  external=reference.fingerprint,
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Trains a model on the rewards of its own answers."""
  cfg = config_lib.build(rl_config.RLConfig, config.rl)
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
  lists = store.lists('train').hits()
  fmt = store.vocab.answer_format()
  rl_config.check_answers_fit(cfg, fmt, lists.candidates.shape[1])
  prompts = make_prompts(store, lists, cfg.prompt_buckets)

  mesh = context.mesh
  shape, params = io.load(store.model(start), mesh, sharding.TRAIN_RULES)
  rl = trainer.Trainer(
    shape,
    cfg,
    fmt,
    prompts,
    mesh,
    context.seed,
    _observer(store, lists, context.directory / 'rollouts.jsonl', cfg, mesh),
    pretrained.trainable(shape, store.vocab),
    reference.load(cfg, store, mesh),
  )
  validate, baseline = _validation(store, rl, cfg, mesh)
  final = loop.fit(
    rl.start(params),
    rl.step,
    prompt_set.RoundIterator(
      prompts, cfg.prompts_per_round, cfg.max_rounds, context.seed
    ),
    cfg.steps,
    context.directory,
    mesh,
    ckpt_every=cfg.checkpoint_every,
    log_every=cfg.log_every,
    desc=context.name,
    evaluate=validate,
    show='reward',
    stop=lambda: _barren(context.directory, cfg) >= len(lists),
    max_skipped=cfg.max_skipped,
    policy=context.policy('valid_ndcg@5' if cfg.keep_best else ''),
    tracking=context.tracking,
  )
  io.save(context.directory / 'model', shape, final.train.params)
  summary = processes.on_first(_summary, context.directory, final, prompts, cfg)
  return {**summary, **baseline}


def _summary(
  directory: pathlib.Path,
  final: trainer.RLState,
  prompts: prompt_set.PromptSet,
  cfg: rl_config.RLConfig,
) -> dict:
  return {
    **_warning(final, _barren(directory, cfg), len(prompts), cfg),
    'lists': len(prompts),
    'updates': int(final.train.step),
    'longest_prompt': max(map(len, prompts.prompts)),
    **_ends(list(files.read_jsonl(directory / 'metrics.jsonl'))),
  }


def _barren(directory: pathlib.Path, cfg: rl_config.RLConfig) -> int:
  """Counts the prompts sampled since a group last qualified."""
  path = directory / 'metrics.jsonl'
  records = list(files.read_jsonl(path)) if path.exists() else []
  return epoch.barren_prompts(records, cfg)


def _warning(
  final: trainer.RLState, barren: int, lists: int, cfg: rl_config.RLConfig
) -> dict[str, str]:
  """Tells of a run, or of its last epoch, in which no group qualified."""
  updates = int(final.train.step)
  if updates and barren < lists:
    return {}
  text = epoch.message(barren, int(final.step), updates, cfg)
  logging.warning('%s', text)
  return {'ended': text}


def make_prompts(
  store: artifacts.Artifacts, lists: artifacts.Lists, buckets: tuple[int, ...]
) -> prompt_set.PromptSet:
  """Writes the prompts of lists.

  Args:
    store: the run's artifacts.
    lists: candidate lists that hold their target.
    buckets: prompt lengths; empty for one.

  Returns:
    The set.
  """
  prompts = [
    store.prompter.rerank(
      store.history(user, position), candidates[candidates >= 0]
    )
    for user, position, candidates in zip(
      lists.user, lists.position, lists.candidates, strict=True
    )
  ]
  return prompt_set.PromptSet(
    prompts,
    lists.candidates,
    store.sids,
    lists.target,
    store.vocab.pad,
    buckets,
    lists.grades,
  )


def _observer(
  store: artifacts.Artifacts,
  lists: artifacts.Lists,
  path: Any,
  cfg: rl_config.RLConfig,
  mesh: jax.sharding.Mesh,
) -> trainer.Observer:
  """Writes the first group of every `rollouts_every`-th step."""
  writer = MetricsWriter(path)
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  first = jax.jit(
    lambda tree: jax.tree.map(lambda x: x[0], tree), out_shardings=whole
  )
  started = False

  def observe(
    step: int, batch: rollout.Lists, rollouts: rollout.Rollouts
  ) -> None:
    nonlocal started
    if not started:
      writer.truncate(step)
      started = True
    if step % cfg.rollouts_every:
      return
    row, group = jax.device_get(first((batch.row, rollouts)))
    if processes.is_first():
      writer.write(step + 1, _describe(store, lists, int(row), group))

  return observe


def _describe(
  store: artifacts.Artifacts,
  lists: artifacts.Lists,
  row: int,
  group: rollout.Rollouts,
) -> dict:
  """Returns one group as JSON: its list, and each answer with its rewards."""
  answers = [
    {
      'text': store.vocab.decode(tokens[mask].tolist()),
      'reward': round(float(group.rewards[g]), 4),
      'rank_after': int(group.rank_after[g]),
      'valid': bool(group.valid[g]),
    }
    for g, (tokens, mask) in enumerate(
      zip(group.groups.tokens, group.written, strict=True)
    )
  ]
  return {
    'user': int(lists.user[row]),
    'position': int(lists.position[row]),
    'rank_before': int(lists.target[row]) + 1,
    'kept': bool(group.groups.weight > 0),
    'answers': answers,
  }


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
    'valid_recall@1': float(np.mean(scores.recall_at_k(positions, 1))),
    'valid_ndcg@5': float(np.mean(scores.ndcg_at_k(positions, 5))),
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
