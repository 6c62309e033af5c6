"""Supervised fine-tuning on reasoning traces (GR2.md, stage 2).

    L = -lambda_r sum log P(reasoning) - lambda_o sum log P(ranking)

over the answer's tokens only, lambda_r < lambda_o [P].
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, sharding
from gr2_jax.lm import io
from gr2_jax.stages import artifacts, pretrained, runner, training
from gr2_jax.stages import phase as phase_lib
from gr2_jax.text import answer, tasks


@dataclasses.dataclass(frozen=True)
class SFTConfig:
  """What SFT does beside the training's own numbers.

  Attributes:
    train: fields of `phase.TrainConfig`; `length` must hold the longest
      prompt with its answer.
    lambda_r: weight of a reasoning token; 0.5 [G].
    lambda_o: weight of a ranking token; 1.0 [G].
    practice: share of the rows that are practice (`traces.practice`) [G].
    holdout: share of the traces that is kept for the held-out loss [G].
  """

  train: Mapping
  lambda_r: float = 0.5
  lambda_o: float = 1.0
  practice: float = 0.0
  holdout: float = 0.05

  def __post_init__(self):
    if not 0 < self.lambda_r < self.lambda_o:
      raise ValueError(
        f'sft.lambda_r = {self.lambda_r} must be above 0 and below lambda_o = '
        f'{self.lambda_o}: the ranking counts more than the reasoning.'
      )
    if not 0 <= self.practice < 1:
      raise ValueError(
        f'sft.practice = {self.practice} must lie in [0, 1): it is the share '
        'of the rows that no true item was checked for.'
      )


def example(
  store: artifacts.Artifacts, trace: Mapping, cfg: SFTConfig
) -> dict[str, np.ndarray]:
  """Makes the training example of one trace.

  Args:
    store: the run's artifacts.
    trace: a line of `traces.jsonl`.
    cfg: the two weights.

  Returns:
    {'tokens': int32 [t], 'weights': float32 [t]}; prompt tokens weigh 0.
  """
  prompt = store.prompter.rerank(
    store.history(trace['user'], trace['position']), trace['candidates']
  )
  tokens, kind = answer.encode_answer(
    store.vocab, trace['explanation'], store.sids[trace['ranking']]
  )
  by_kind = {answer.REASONING: cfg.lambda_r, answer.RANKING: cfg.lambda_o}
  weights = [0.0] * len(prompt) + [by_kind[k] for k in kind]
  return {
    'tokens': np.array([*prompt, *tokens], np.int32),
    'weights': np.array(weights, np.float32),
  }


def practice(context: runner.Context, cfg: SFTConfig) -> list[dict]:
  """Reads the practice traces, none where `cfg.practice` is 0.

  Raises:
    ValueError: there should be some, and are none.
  """
  if not cfg.practice:
    return []
  path = context.input('traces') / 'practice.jsonl'
  traces = list(files.read_jsonl(path))
  if not traces:
    raise ValueError(
      f'sft.practice = {cfg.practice}, but {path} is empty: raise '
      'traces.practice (every training list may hold its target), or set '
      'sft.practice to 0.'
    )
  return traces


def truncation(
  store: artifacts.Artifacts, traces: Sequence[Mapping]
) -> dict[str, int]:
  """Counts what the prompts of traces leave out, each of them once.

  Args:
    store: the run's artifacts.
    traces: lines of `traces.jsonl` and `practice.jsonl`.

  Returns:
    `Prompter.counts`; the number of prompts, of those that lost history for
    `max_tokens`, and of the items that these lost.
  """
  dropped = [
    store.prompter.dropped(
      store.history(trace['user'], trace['position']), trace['candidates']
    )
    for trace in traces
  ]
  return {
    **store.prompter.counts,
    'prompts': len(dropped),
    'prompts_cut': sum(count > 0 for count in dropped),
    'history_items_dropped': sum(dropped),
  }


@runner.stage(
  'sft',
  sections=('text', 'sft'),
  inputs=('data', 'sid', 'midtrain', 'traces'),
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Trains the mid-trained model on the accepted traces."""
  cfg = config_lib.build(SFTConfig, config.sft)
  phase = config_lib.build(phase_lib.TrainConfig, cfg.train)
  store = artifacts.Artifacts(config, context.workdir)
  traces = list(files.read_jsonl(context.input('traces') / 'traces.jsonl'))
  if not traces:
    raise ValueError(
      f'{context.input("traces")} has no accepted trace: look at the reasons '
      'in its summary.json, and raise traces.attempts or use mode targeted.'
    )
  examples = [example(store, trace, cfg) for trace in traces]
  order = np.random.default_rng(context.seed).permutation(len(examples))
  kept = max(round(cfg.holdout * len(examples)), 1)
  held_out, train = order[:kept], order[kept:]

  def source(name: str, rows: np.ndarray) -> tasks.Examples:
    return tasks.Examples(name, len(rows), lambda i: examples[rows[i]])

  sources, weights = {'answer': source('answer', train)}, {'answer': 1.0}
  unchecked = practice(context, cfg)
  if unchecked:
    sources['practice'] = tasks.Examples(
      'practice', len(unchecked), lambda i: example(store, unchecked[i], cfg)
    )
    weights = {'answer': 1 - cfg.practice, 'practice': cfg.practice}

  mesh = context.mesh
  shape, params = io.load(store.model('midtrain'), mesh, sharding.TRAIN_RULES)

  def nll(params) -> float:
    rows = source('held_out', held_out)
    return training.mean_nll(shape, params, rows, phase, mesh)

  params = training.train(
    phase,
    shape,
    params,
    sources,
    weights,
    context.directory,
    mesh,
    context.seed,
    'sft',
    trainable=pretrained.trainable(shape, store.vocab),
    evaluate=lambda state: {'valid_nll': nll(state.params)},
    policy=context.policy(),
    tracking=context.tracking,
  )
  io.save(context.directory / 'model', shape, params)
  lengths = [len(e['tokens']) for e in examples]
  return {
    'traces': len(traces),
    'held_out': len(held_out),
    'longest': max(lengths),
    'mean_tokens': float(np.mean(lengths)),
    'perplexity': math.exp(nll(params)),
    'truncation': truncation(store, [*traces, *unchecked]),
  }
