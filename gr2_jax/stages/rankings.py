"""RL on rankings that are drawn from utilities: the body of the RL stage.

Reads the ranker that SFT left; writes checkpoints, `metrics.jsonl`,
`timing.jsonl` and the ranker.
"""

from typing import Any

import ml_collections

from gr2_jax import sharding
from gr2_jax.data import mixed, pipeline
from gr2_jax.rank import heads
from gr2_jax.rl import config as rl_config
from gr2_jax.rl import ranking_trainer
from gr2_jax.run import artifacts, runner
from gr2_jax.stages import list_prompts, listwise
from gr2_jax.train import loop

# What only the list that is written token by token has, and what it is with
# rankings.
_WITHOUT = {
  'kl': (0.0, 'no distribution over tokens is held to a reference'),
  'entropy_bonus': (0.0, 'the entropy of tokens is not rewarded'),
  'tis_cap': (0.0, 'no ratio to the sampler is left to correct for'),
  'old_logps': ('sampler', 'log-probs are always those of the trainer'),
  'overlong_buffer': (0, 'an answer cannot become too long'),
  'constrain': (True, 'a ranking is always a permutation'),
}


def check(cfg: rl_config.RLConfig, config: ml_collections.ConfigDict) -> None:
  """Refuses settings that rankings from utilities do not read.

  Args:
    cfg: the settings of RL.
    config: of the run.

  Raises:
    ValueError: one that would do nothing, by name.
  """
  for name, (value, reason) in _WITHOUT.items():
    if getattr(cfg, name) != value:
      raise ValueError(
        f'rl.{name} = {getattr(cfg, name)!r} does nothing with '
        f"answer.ranking='likelihood': {reason}. Set it to {value!r}, or "
        "answer.ranking to 'list'."
      )
  if config.direct.steps:
    raise ValueError(
      f"direct.steps = {config.direct.steps} with answer.ranking='likelihood': "
      'RL trains answers without explanation already. Set it to 0, or '
      "answer.ranking to 'list'."
    )


def train(
  cfg: rl_config.RLConfig,
  config: ml_collections.ConfigDict,
  context: runner.Context,
) -> dict:
  """Trains a ranker on the rewards of its rankings, resumably.

  Args:
    cfg: the settings.
    config: of the run.
    context: of the stage.

  Returns:
    The stage's summary.
  """
  rl_config.check_mesh(cfg, sharding.batch_parts(context.mesh), 'likelihood')
  store = artifacts.Artifacts(config, context.workdir)
  lists = list_prompts.rl_lists(store, cfg.lists)
  mesh, fmt = context.mesh, store.vocab.answer_format()
  shape, params, names = listwise.load(
    store.model(cfg.start), mesh, sharding.TRAIN_RULES
  )
  trainable = listwise.trainable(shape, store)
  rl = ranking_trainer.RankingTrainer(
    shape, cfg, fmt, mesh, context.seed, trainable=trainable
  )
  valid = list_prompts.direct_prompts(store, store.lists('valid').hits())
  measure = listwise.validation(shape, fmt, valid, mesh)
  before = measure(params)
  final = loop.Loop(
    step_fn=rl.step,
    iterator=_batches(store, lists, cfg, context.seed),
    num_steps=cfg.steps,
    directory=context.directory,
    mesh=mesh,
    ckpt_every=cfg.checkpoint_every,
    log_every=cfg.log_every,
    desc=context.name,
    evaluate=lambda state: measure(state.train.params),
    show='reward',
    work=lambda batch: {'lists': sum(len(x.prompt) for x in batch.values())},
    max_skipped=cfg.max_skipped,
    policy=context.policy('valid_ndcg@5' if cfg.keep_best else ''),
    tracking=context.tracking,
  ).fit(rl.start(params))
  best_step, trained = int(final.step), final.train.params
  after = measure(trained)
  if cfg.keep_best and before['valid_ndcg@5'] > after['valid_ndcg@5']:
    # The ranker that RL began with is a checkpoint, too.
    best_step, trained, after = 0, params, before
  head = listwise.save(context.directory / 'model', shape, trained, names, mesh)
  return {
    'lists': len(lists),
    'best_step': best_step,
    'head': head,
    'valid_lists': len(valid),
    **{f'{name}_start': value for name, value in before.items()},
    **after,
  }


def _batches(
  store: artifacts.Artifacts,
  lists: artifacts.CandidateLists,
  cfg: rl_config.RLConfig,
  seed: int,
) -> mixed.Mixed:
  """Returns endless batches of lists of both kinds."""

  def batches(prompts: Any, size: int, seed: int) -> list_prompts.Batches:
    rows = pipeline.index_iterator(len(lists), size, seed)
    return list_prompts.Batches(prompts.batch, rows)

  direct = list_prompts.direct_prompts(store, lists)
  parts = {heads.DIRECT: batches(direct, cfg.lists_per_step, seed)}
  if cfg.explained_per_step:
    explained = list_prompts.explained_prompts(store, lists)
    size = cfg.explained_per_step
    parts[heads.EXPLAINED] = batches(explained, size, seed + 1)
  return mixed.Mixed(parts)
