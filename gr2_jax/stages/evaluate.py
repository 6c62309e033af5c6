"""Evaluation: the test lists re-ranked by every system, and the report.

Decodes greedily and writes `workdir/evaluate/answers_*.jsonl`, then
`workdir/report.json` (results/README.md) and `workdir/report.html`.
What the systems are, `report/results.py` says. Beside them the position bias:
what the models lose when prompts show the same candidates in a random order.
"""

import dataclasses
import time
from collections.abc import Sequence

import ml_collections
import numpy as np

from gr2_jax import bounds, files, processes
from gr2_jax import config as config_lib
from gr2_jax.rank import linear, popularity, sasrec
from gr2_jax.ranker import ranking
from gr2_jax.report import curves, page, pooled, results
from gr2_jax.run import artifacts, reporting, runner
from gr2_jax.stages import answers, retrievers
from gr2_jax.stages import candidates as candidates_stage
from gr2_jax.teacher import rules

MODELS = ('sft', 'rl')


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """How the test lists are decoded and shown; all our choice.

  Attributes:
    max_lists: test lists that are re-ranked, drawn by the seed; 0 for all.
    batch_size: lists decoded at a time.
    chunk: lists, at most, between two points at which an interrupted run
      resumes.
    examples: lists on the page.
    shuffled_lists: how many lists, drawn by the seed, are answered once more
      with their candidates in random order; 0 for none.
  """

  max_lists: int = 0
  batch_size: int = 64
  chunk: int = 512
  examples: int = 10
  shuffled_lists: int = 500

  def __post_init__(self):
    bounds.at_least(self, 1, 'batch_size', 'chunk')
    bounds.at_least(self, 0, 'max_lists', 'examples', 'shuffled_lists')


def _read_test(
  store: artifacts.Artifacts, cfg: EvaluateConfig, seed: int
) -> reporting.Test:
  found = store.lists('test').hits()
  if not len(found):
    raise ValueError(
      'No test list holds its target, so there is nothing to re-rank: train '
      'the retriever longer (midtrain.all.steps), or take another '
      'candidates.source.'
    )
  if cfg.max_lists and cfg.max_lists < len(found):
    order = np.random.default_rng(seed).permutation(len(found))
    found = found.take(np.sort(order[: cfg.max_lists]))
  pairs = zip(found.user, found.position, strict=True)
  summary = files.read_json(store.workdir / 'candidates' / 'summary.json')
  return reporting.Test(
    store,
    found,
    [store.history(user, position) for user, position in pairs],
    found.candidates[np.arange(len(found)), found.target],
    summary['source'] == candidates_stage.SLATES,
  )


def _system(
  lists: artifacts.CandidateLists, found: Sequence[dict]
) -> results.System:
  return results.from_rankings(
    lists.candidates,
    [answer['order'] for answer in found],
    [answer['valid'] for answer in found],
    [answer['tokens'] for answer in found],
    [answer['prompt_tokens'] for answer in found],
  )


def _position_bias(
  test: reporting.Test,
  systems: dict[str, results.System],
  cfg: EvaluateConfig,
  context: runner.Context,
) -> dict:
  """Answers some lists again, their candidates shown in random order."""
  size = min(cfg.shuffled_lists, len(test.lists))
  if not size:
    return {}
  order = np.random.default_rng(context.seed + 1).permutation(len(test.lists))
  rows = np.sort(order[:size])
  some = test.lists.take(rows)
  shown = answers.shuffle(some.candidates, context.seed)
  found = {'n': size}
  for stage in MODELS:
    asked = answers.AnswerTask(
      f'{stage}_shuffled',
      stage,
      some,
      [test.histories[i] for i in rows],
      shown=shown,
    )
    system = _system(
      some, answers.collect(asked, context, cfg.batch_size, cfg.chunk)
    )
    found[stage] = results.difference(
      system,
      systems[stage].take(rows),
      test.targets[rows],
      context.seed,
      graded=(some.candidates, some.grades) if test.graded else None,
      users=some.user,
    )
  return found


def _evidence(test: reporting.Test) -> dict[str, results.System]:
  """Orders the lists by their columns: rules, and the linear model."""
  lists, store = test.lists, test.store
  names = store.evidence_names
  if not names:
    return {}
  known = store.training_lists()
  weights = linear.fit(known.features, known.candidates >= 0, known.target)
  real = lists.candidates >= 0
  return {
    'rules': results.reorder(
      lists.candidates, rules.from_columns(lists.features, real, names)
    ),
    'evidence': results.reorder(
      lists.candidates, linear.utilities(weights, lists.features, real)
    ),
  }


def _baselines(
  test: reporting.Test, context: runner.Context
) -> dict[str, results.System]:
  """Orders the lists without a language model."""
  incoming, store = test.lists.candidates, test.store
  rng = np.random.default_rng(context.seed)
  real = np.maximum(incoming, 0)
  counts = popularity.train(store.dataset, store.splits)
  systems = {
    'prerank': results.System(incoming, np.ones(len(incoming), bool)),
    'random': results.reorder(incoming, rng.random(incoming.shape)),
    'popularity': results.reorder(incoming, popularity.scores(counts, real)),
  }
  model = retrievers.load_sasrec(store, context.mesh)
  if model is not None:
    keys = sasrec.scores(model, test.histories, real)
    systems['sasrec'] = results.reorder(incoming, keys)
  return systems


def _rounds(
  config: ml_collections.ConfigDict, store: artifacts.Artifacts
) -> dict[str, tuple[str, str]]:
  """Returns system to (whose model, how it answers)."""
  rounds = {stage: (stage, ranking.EXPLAINED) for stage in MODELS}
  if not ranking.is_by_list(config):
    rounds['direct'] = 'rl', ranking.DIRECT
    if config.sft.weights.get('answer', 0):
      rounds['list'] = 'rl', ranking.LIST
  elif config.rl.constrain:
    trained = store.model('direct').exists()
    rounds['direct'] = 'direct' if trained else 'rl', ranking.DIRECT
  return rounds


@runner.stage(
  'evaluate',
  sections=('evaluate', 'text', 'answer', 'sft', 'rl'),
  inputs=reporting.EARLIER,
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Re-ranks the test lists and writes the report."""
  started = time.monotonic()
  cfg = config_lib.build(EvaluateConfig, config.evaluate)
  store = artifacts.Artifacts(config, context.workdir)
  test = _read_test(store, cfg, context.seed)
  systems = _baselines(test, context)
  systems |= _evidence(test)
  rounds = _rounds(config, store)
  found = {}
  for name, (stage, mode) in rounds.items():
    asked = answers.AnswerTask(name, stage, test.lists, test.histories, mode)
    found[name] = answers.collect(asked, context, cfg.batch_size, cfg.chunk)
    systems[name] = _system(test.lists, found[name])
  if found['rl'] and found['rl'][0]['alone'] is not None:
    alone = [answer | {'order': answer['alone']} for answer in found['rl']]
    systems['rl_alone'] = _system(test.lists, alone)
  bias = _position_bias(test, systems, cfg, context)

  def finish() -> dict:
    report = reporting.build(config, context, test, systems)
    report['explanations'] = reporting.measure_explanations(
      test, {stage: found[stage] for stage in MODELS}
    )
    if bias:
      report['rerank']['shuffled'] = bias
    report['seconds']['evaluate'] = round(time.monotonic() - started, 1)
    examples = reporting.draw_examples(
      test, found['rl'], cfg.examples, context.seed
    )
    document = page.build(report, curves.draw(context.workdir), examples)
    pooled.save(
      context.directory / pooled.FILE, test.lists.user, systems, test.targets
    )
    files.write_json(context.workdir / 'report.json', report)
    files.atomic_write(context.workdir / 'report.html', document)
    return report['rerank']

  return processes.on_first(finish)
