"""Mid-training: the LLM learns semantic IDs beside text (GR2, stage 1b).

Writes `workdir/midtrain/`: `vocab/`, `model/`, `metrics.jsonl`, `checkpoints/`
and, of the phase that trains new rows only, `new_rows/`.
"""

import dataclasses
import itertools
import math
import pathlib

import ml_collections
import numpy as np

from gr2_jax import processes
from gr2_jax.lm import io
from gr2_jax.run import (
  artifacts,
  models,
  pretrained,
  reporting,
  runner,
  training,
)
from gr2_jax.stages import midtraining
from gr2_jax.teacher import rationale
from gr2_jax.text import prompts, tasks, wording
from gr2_jax.text import vocab as vocab_lib


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


def _train_vocab(
  config: ml_collections.ConfigDict,
  store: artifacts.Artifacts,
  sids: tuple[int, int],
  directory: pathlib.Path,
) -> vocab_lib.Vocab:
  """Returns the vocabulary of a model from scratch, on disk."""

  def train() -> None:
    if not (directory / 'vocab.json').exists():
      texts = wording.corpus(store.dataset.items), rationale.corpus()
      vocab_lib.Vocab.train(
        itertools.chain(*texts), config.text.pieces, *sids
      ).save(directory)

  processes.on_first(train)
  return vocab_lib.Vocab.load(directory)


def _truncation(prompter: prompts.Prompter) -> dict[str, int]:
  """Counts cut texts; the limits would leave 95 % of each kind whole."""
  needed = np.quantile(prompter.whole, 0.95, axis=0, method='higher')
  names = ('title_tokens', 'category_tokens')
  return prompter.counts | dict(zip(names, map(int, needed), strict=True))


@runner.stage(
  'midtrain',
  sections=('text', 'lm', 'midtrain'),
  inputs=('data', 'sid'),
  external=pretrained.fingerprint,
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Trains the vocabulary and the decoder on the mixture of tasks."""
  store = artifacts.Artifacts(config, context.workdir)
  mesh, seed = context.mesh, context.seed
  directory = context.directory / 'vocab'
  sids = store.sids.shape[1], config.sid.codes
  shape, params, vocab = models.start(
    config,
    sids,
    mesh,
    seed,
    lambda: _train_vocab(config, store, sids, directory),
  )
  if pretrained.source(config):
    processes.on_first(vocab.save, directory)
  truncation = _truncation(store.prompter)
  reporting.tell(
    {
      'config': config,
      'dataset': {'items': store.dataset.num_items},
      'midtrain': {'truncation': truncation},
    }
  )
  job = midtraining.Training(
    config,
    store,
    vocab,
    store.splits,
    directory=context.directory,
    mesh=mesh,
    seed=seed,
    desc='midtrain',
    policy=context.policy(),
    tracking=context.tracking,
  )
  params = job.run(shape, params)
  io.save(context.directory / 'model', shape, params)
  size, phase = job.cfg.eval_examples, job.phase
  scored = {name: _Some(source, size) for name, source in job.sources.items()}
  scored['next_item_valid'] = job.held_out
  nll = {name: job.nll(shape, params, x) for name, x in scored.items()}
  return {
    'parameters': shape.num_params,
    'vocabulary': vocab.size,
    **training.best_step(context.directory),
    'tokens': phase.steps * phase.batch_size * phase.length,
    'perplexity': {name: math.exp(value) for name, value in nll.items()},
    'truncation': truncation,
  }
