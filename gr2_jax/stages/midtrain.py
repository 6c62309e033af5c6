"""Mid-training: the LLM learns semantic IDs beside text (GR2.md, stage 1b).

Writes `workdir/midtrain/`: `vocab/`, `model/`, `metrics.jsonl`, `checkpoints/`
and, of the phase that trains new rows only, `new_rows/`.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import processes, sharding
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, io
from gr2_jax.stages import artifacts, pretrained, runner, training
from gr2_jax.stages import phase as phase_lib
from gr2_jax.teacher import rationale
from gr2_jax.text import prompts, tasks, wording
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.train import optimiser


@dataclasses.dataclass(frozen=True)
class MidtrainConfig:
  """What mid-training does beside the phases' own numbers.

  Attributes:
    weights: share of each task in the examples drawn; 0 leaves it out. About
      two thirds next item and a quarter persona in industry [N].
    new_rows: the phase that trains the added rows only; 0 steps skip it. It
      serves pretrained models, whose other rows know something already [N].
    all: the phase that trains everything.
    tasks: fields of `tasks.TaskConfig` beside `prompt` and `length`.
    eval_examples: examples a task for the perplexities of the summary.
  """

  weights: Mapping[str, float]
  new_rows: Mapping
  all: Mapping
  tasks: Mapping
  eval_examples: int = 256


@dataclasses.dataclass(frozen=True)
class _Some:
  """The first `size` examples of a source in a fixed random order."""

  source: tasks.Examples
  size: int

  def __len__(self) -> int:
    return min(self.size, len(self.source))

  def __getitem__(self, index: int) -> dict:
    order = np.random.default_rng(0).permutation(len(self.source))
    return self.source[order[index]]


def _model(
  config: ml_collections.ConfigDict,
  store: artifacts.Artifacts,
  context: runner.Context,
) -> tuple[lm_config.LMConfig, Any, vocab_lib.Vocab]:
  """Returns shape, parameters and vocabulary to start from; writes the last."""
  mesh, seed = context.mesh, context.seed
  directory = context.directory / 'vocab'
  sids = store.sids.shape[1], config.sid.codes
  if pretrained.source(config):
    shape, params, vocab = pretrained.load(config, *sids, mesh, seed)
    processes.on_first(vocab.save, directory)
    return shape, params, vocab

  def train() -> None:
    if not (directory / 'vocab.json').exists():
      texts = wording.corpus(store.dataset.items), rationale.corpus()
      vocab_lib.Vocab.train(
        itertools.chain(*texts), config.text.pieces, *sids
      ).save(directory)

  processes.on_first(train)
  vocab = vocab_lib.Vocab.load(directory)
  shape = lm_config.LMConfig(
    vocab_size=vocab.size, **config_lib.to_dict(config.lm)
  )
  key = jax.random.key(seed)
  params = decoder.init(shape, mesh, sharding.TRAIN_RULES, key)
  return shape, params, vocab


def _held_out(
  store: artifacts.Artifacts, vocab: vocab_lib.Vocab, limit: int
) -> tasks.Examples:
  """Next-item examples whose one scored item is a validation target."""
  user, position = store.splits.examples['valid']
  rows = np.random.default_rng(0).permutation(len(user))[:limit]

  def make(index: int) -> dict:
    u, p = int(user[rows[index]]), int(position[rows[index]])
    prompt = store.prompter.retrieval(store.history(u, p))
    target = vocab.sid_tokens(store.sids[store.dataset.sequence(u)[p]])
    tokens = np.array([*prompt, *target], np.int32)
    weights = np.zeros(len(tokens), np.float32)
    weights[len(prompt) :] = 1
    return {'tokens': tokens, 'weights': weights}

  return tasks.Examples('held_out', len(rows), make)


def _sources(
  config: ml_collections.ConfigDict,
  cfg: MidtrainConfig,
  store: artifacts.Artifacts,
  vocab: vocab_lib.Vocab,
  length: int,
) -> tuple[dict[str, tasks.Examples], dict[str, float]]:
  """Makes the tasks that have a weight; returns them with their weights."""
  task_config = tasks.TaskConfig(
    prompt=config_lib.build(prompts.PromptConfig, config.text.prompt),
    length=length,
    **cfg.tasks,
  )
  made = tasks.make(store.dataset, store.splits, store.sids, vocab, task_config)
  unknown = sorted(set(cfg.weights) - set(made))
  if unknown:
    raise ValueError(
      f'midtrain.weights names {unknown}; the tasks are {sorted(made)}.'
    )
  weights = {name: w for name, w in cfg.weights.items() if w > 0}
  return {name: made[name] for name in weights}, weights


@runner.stage(
  'midtrain',
  sections=('text', 'lm', 'midtrain'),
  inputs=('data', 'sid'),
  external=pretrained.fingerprint,
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Trains the vocabulary and the decoder on the mixture of tasks."""
  cfg = config_lib.build(MidtrainConfig, config.midtrain)
  store = artifacts.Artifacts(config, context.workdir)
  shape, params, vocab = _model(config, store, context)
  phase = config_lib.build(phase_lib.TrainConfig, cfg.all)
  sources, weights = _sources(config, cfg, store, vocab, phase.length)
  mesh, seed = context.mesh, context.seed
  common = (shape, params, sources, weights)
  first = config_lib.build(phase_lib.TrainConfig, cfg.new_rows)
  if first.steps:
    params = training.train(
      first,
      *common,
      context.directory / 'new_rows',
      mesh,
      seed + 1,
      'midtrain, new rows',
      trainable=optimiser.new_rows(vocab.text_size),
      policy=context.policy(),
      tracking=context.tracking,
    )
  held_out = _held_out(store, vocab, cfg.eval_examples)

  def evaluate(state) -> dict:
    nll = training.mean_nll(shape, state.params, held_out, phase, mesh)
    return {'valid_nll': nll}

  params = training.train(
    phase,
    shape,
    params,
    sources,
    weights,
    context.directory,
    mesh,
    seed + 2,
    'midtrain',
    trainable=pretrained.trainable(shape, vocab),
    evaluate=evaluate,
    policy=context.policy(),
    tracking=context.tracking,
  )
  io.save(context.directory / 'model', shape, params)
  scored = {
    name: _Some(source, cfg.eval_examples) for name, source in sources.items()
  }
  scored['next_item_valid'] = held_out
  nll = {
    name: training.mean_nll(shape, params, source, phase, mesh)
    for name, source in scored.items()
  }
  return {
    'parameters': shape.num_params,
    'vocabulary': vocab.size,
    'tokens': phase.steps * phase.batch_size * phase.length,
    'perplexity': {name: math.exp(value) for name, value in nll.items()},
    'truncation': dict(store.prompter.counts),
  }
