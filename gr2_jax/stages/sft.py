"""Supervised fine-tuning: which candidate is the true item, and why.

With `answer.ranking='likelihood'` the true item's utility is raised above the
others' (`stages/sft_loss.py`): of lists without explanation, of lists with the
words of a teacher before the choice, and text rows keep what mid-training
taught. SFT trains on `traces.sft_share` of the lists of the last training
positions; RL has the rest, since it learns nothing from lists that the model
has memorised (`Artifacts.sft_lists`). On the rest temperature and weights are
fitted at the end (`heads.stack`).

With 'list', the paper's way, text rows alone are trained on (GR2, stage 2):

    L = -lambda_r sum log P(reasoning) - lambda_o sum log P(ranking)

over the answer's tokens, lambda_r < lambda_o [P].
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from gr2_jax import bounds, files, sharding
from gr2_jax import config as config_lib
from gr2_jax.data import mixed, pipeline
from gr2_jax.lm import io
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import heads
from gr2_jax.ranker import ranking
from gr2_jax.run import artifacts, pretrained, runner, training
from gr2_jax.run import phase as phase_lib
from gr2_jax.stages import (
  list_prompts,
  listwise,
  midtraining,
  sft_loss,
  sft_rows,
  sft_validation,
)
from gr2_jax.text import tasks
from gr2_jax.train import loop, optimiser, state, step

ANSWER, NEXT_ITEM = 'answer', 'next_item'


@dataclasses.dataclass(frozen=True)
class SFTConfig:
  """What SFT does; all [G] unless marked.

  Attributes:
    train: the training's own numbers; `batch_size` text rows of `length` tokens
      a step. `length` must hold the longest prompt with its answer where
      `weights` has answers.
    weights: mixture of the text rows: 'next_item', mid-training's examples, and
      'answer', whole answers token by token, which 'list' ranks by.
    replay: weight of a text token beside a list's log-likelihood; read with
      answer.ranking='likelihood' alone.
    lists: lists without explanation a step.
    explained: lists with the words of an explanation a step; 0 for none.
    distilled: lists without their target a step, from which the likelihood
      learns what the evidence would choose; 0 for none.
    shuffled: share of the explained prompts that show the candidates in random
      order, so that places are learned from the column that names them.
    lambda_r: weight of a reasoning token [P: below lambda_o].
    lambda_o: weight of a ranking token of an answer.
    holdout: share of the traces that is kept for the held-out loss.
  """

  train: phase_lib.TrainConfig = phase_lib.TrainConfig(
    steps=400, batch_size=2, length=576, lr=3e-4, dropout=0.1, ckpt_every=50
  )
  weights: Mapping[str, float] = dataclasses.field(
    default_factory=lambda: {NEXT_ITEM: 0.5, ANSWER: 0.5}
  )
  replay: float = 0.02
  lists: int = 16
  explained: int = 4
  distilled: int = 64
  shuffled: float = 0.5
  lambda_r: float = 0.1
  lambda_o: float = 1.0
  holdout: float = 0.05

  def __post_init__(self):
    bounds.share(self, 'holdout', whole=False)
    if not 0 < self.lambda_r < self.lambda_o:
      raise ValueError(
        f'sft.lambda_r = {self.lambda_r} must be above 0 and below lambda_o = '
        f'{self.lambda_o}: the ranking counts more than the reasoning.'
      )
    unknown = sorted(set(self.weights) - {ANSWER, NEXT_ITEM})
    if unknown:
      raise ValueError(
        f'sft.weights names {unknown}; the tasks are {[ANSWER, NEXT_ITEM]}.'
      )
    for name, least in (('lists', 1), ('explained', 0), ('distilled', 0)):
      if getattr(self, name) < least:
        raise ValueError(
          f'sft.{name} is {getattr(self, name)}; give {least} or more.'
        )
    if self.replay < 0 or not 0 <= self.shuffled <= 1:
      raise ValueError(
        f'sft.replay = {self.replay} and sft.shuffled = {self.shuffled}: give '
        'a weight of 0 or more, and a share in [0, 1].'
      )


@dataclasses.dataclass(frozen=True)
class _Job:
  """What SFT trains with.

  Attributes:
    config: of the run.
    cfg: of the stage.
    context: of the stage.
    store: what earlier stages wrote.
    traces: accepted ones, in a random order; the first `held_out` are not
      trained on.
    held_out: how many.
  """

  config: ml_collections.ConfigDict
  cfg: SFTConfig
  context: runner.Context
  store: artifacts.Artifacts
  traces: list[dict]
  held_out: int

  @property
  def phase(self) -> phase_lib.TrainConfig:
    """The training's own numbers."""
    return self.cfg.train

  def text(self) -> tuple[dict[str, tasks.Examples], dict[str, float]]:
    """Makes the sources of the text rows, and their weights."""
    weights = {name: w for name, w in self.cfg.weights.items() if w > 0}
    made = {}
    if ANSWER in weights:
      made[ANSWER] = self._answers(self.traces[self.held_out :])
    if NEXT_ITEM in weights:
      made[NEXT_ITEM] = midtraining.next_items(
        self.config, self.store, self.phase.length
      )
    return made, weights

  def _answers(self, traces: Sequence[dict]) -> tasks.Examples:
    weights = self.cfg.lambda_r, self.cfg.lambda_o
    rows = [sft_rows.example(self.store, trace, *weights) for trace in traces]
    return tasks.Examples(ANSWER, len(rows), lambda i: rows[i])

  def train_list(self) -> tuple[Any, Any, dict]:
    """Trains on whole answers; returns shape, parameters and numbers."""
    mesh, store, context = self.context.mesh, self.store, self.context
    given = io.load(store.model('midtrain'), mesh, sharding.TRAIN_RULES)
    held_out = self._answers(self.traces[: self.held_out])

    def nll(params) -> float:
      return training.mean_nll(given[0], params, held_out, self.phase, mesh)

    params = training.train(
      self.phase,
      *given,
      *self.text(),
      directory=context.directory,
      mesh=mesh,
      seed=context.seed,
      desc='sft',
      trainable=pretrained.trainable(given[0], store.vocab),
      evaluate=lambda state: {'valid_nll': nll(state.params)},
      policy=context.policy(),
      tracking=context.tracking,
    )
    io.save(context.directory / 'model', given[0], params)
    return {'perplexity': math.exp(nll(params))}

  def train_utilities(self) -> dict:
    """Trains the likelihoods of candidates; returns numbers."""
    mesh, store, context = self.context.mesh, self.store, self.context
    lists = store.sft_lists()
    shape, lm = io.load(store.model('midtrain'), mesh, sharding.TRAIN_RULES)
    params = {'lm': lm, 'head': listwise.fit_head(store, mesh)}
    sources, weights = self.text()
    tx = optimiser.make(self.phase.optimiser, listwise.trainable(shape, store))
    loss = sft_loss.make(
      dataclasses.replace(shape, dropout=self.phase.dropout),
      store.vocab.answer_format(),
      sorted(sources),
      self.cfg.lambda_r,
      self.cfg.replay,
    )
    measure = sft_validation.make(
      store,
      shape,
      lists,
      self.traces[: self.held_out] if self.cfg.explained else [],
      mesh,
    )
    trained = loop.Loop(
      step_fn=step.make_train_step(loss, tx, self.phase.microbatches),
      iterator=self._batches(lists, sources, weights, params['head']),
      num_steps=self.phase.steps,
      directory=context.directory,
      mesh=mesh,
      ckpt_every=self.phase.ckpt_every,
      log_every=self.phase.log_every,
      desc='sft',
      evaluate=lambda now: measure(now.params),
      work=_lists,
      max_skipped=self.phase.max_skipped,
      policy=context.policy(
        f'-{sft_validation.CHOICE}' if self.phase.keep_best else ''
      ),
      tracking=context.tracking,
    ).fit(state.create(params, tx, mesh))
    params = self._stacked(shape, trained.params, params['head'])
    head = listwise.save(
      context.directory / 'model', shape, params, store.evidence_names, mesh
    )
    return {
      'lists': len(lists),
      'best_step': int(trained.step),
      'head': head,
      **measure(params),
    }

  def _stacked(self, shape: LMConfig, params: Any, head: Any) -> Any:
    """Fits the head again on lists that SFT did not see."""
    store, mesh = self.store, self.context.mesh
    unseen = store.unseen_lists()
    if not len(unseen):
      logging.warning(
        'SFT trained on every list: its weights of likelihood and evidence '
        'stay as trained, and trust the likelihood too much. Lower '
        'traces.sft_share.'
      )
      return params
    prompts = list_prompts.direct_prompts(store, unseen)
    fmt = store.vocab.answer_format()
    made = listwise.stack_head(
      shape, fmt, params['lm'], prompts, head=head, mesh=mesh
    )
    return {**params, 'head': made}

  def _batches(
    self,
    lists: artifacts.CandidateLists,
    sources: Mapping[str, tasks.Examples],
    weights: Mapping[str, float],
    head: Any,
  ) -> mixed.Mixed:
    cfg, seed = self.cfg, self.context.seed
    parts = {
      sft_loss.DIRECT: list_prompts.Batches(
        list_prompts.direct_prompts(self.store, lists).batch,
        pipeline.index_iterator(len(lists), cfg.lists, seed),
      )
    }
    if cfg.explained:
      explained = list_prompts.explained_rows(
        self.store,
        lists,
        self.traces[self.held_out :],
        cfg.shuffled,
        self.context.seed,
      )
      parts[sft_loss.EXPLAINED] = list_prompts.Batches(
        explained.batch,
        pipeline.index_iterator(len(explained), cfg.explained, seed + 1),
      )
    if cfg.distilled:
      fitted = sharding.fetch(self.context.mesh, head[heads.FULL]['weights'])
      distilled = list_prompts.distilled_rows(self.store, fitted)
      if distilled is None:
        logging.info('Every training list holds its target: none is distilled.')
      else:
        parts[sft_loss.DISTILLED] = list_prompts.Batches(
          distilled.batch,
          pipeline.index_iterator(len(distilled), cfg.distilled, seed + 2),
        )
    if cfg.replay and sources:
      parts[sft_loss.TEXT] = phase_lib.batches(
        sources, weights, self.phase, seed, self.context.directory
      )
    return mixed.Mixed(parts)


def _lists(batch: Mapping[str, Any]) -> dict[str, int]:
  """Counts the lists that a step learns from."""
  kinds = [rows for kind, rows in batch.items() if kind != sft_loss.TEXT]
  return {'lists': sum(len(getattr(x, 'lists', x).prompt) for x in kinds)}


@runner.stage(
  'sft',
  sections=('text', 'answer', 'sft', 'midtrain'),
  inputs=('data', 'sid', 'midtrain', 'candidates', 'traces'),
  version=2,
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Trains the mid-trained model on lists and accepted traces."""
  cfg = config_lib.build(SFTConfig, config.sft)
  store = artifacts.Artifacts(config, context.workdir)
  traces = list(files.read_jsonl(context.input('traces') / 'traces.jsonl'))
  if len(traces) < 2:
    raise ValueError(
      f'{context.input("traces")} has {len(traces)} accepted traces, and SFT '
      'needs two or more, to train on and to validate: see the reasons in its '
      'summary.json, and raise traces.attempts or use traces.mode=targeted.'
    )
  order = np.random.default_rng(context.seed).permutation(len(traces))
  kept = max(round(cfg.holdout * len(traces)), 1)
  job = _Job(
    config,
    cfg,
    context,
    store,
    traces=[traces[i] for i in order],
    held_out=kept,
  )
  if ranking.is_by_list(config):
    found = job.train_list() | training.best_step(context.directory)
  else:
    found = job.train_utilities()
  return {
    'traces': len(traces),
    'held_out': kept,
    **found,
    'truncation': sft_rows.truncation(store, traces),
  }
