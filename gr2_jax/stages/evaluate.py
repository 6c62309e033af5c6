"""Evaluation: the test lists re-ranked by every system, and the report.

Decodes greedily and writes `workdir/evaluate/answers_{sft,rl}.jsonl`, then
`workdir/report.json` (DESIGN.md, "Fixed names") and `workdir/report.html`.
"""

import dataclasses
import shutil
import time

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.rank import popularity, sasrec
from gr2_jax.report import curves, page, results
from gr2_jax.stages import artifacts, ranker, reporting, runner
from gr2_jax.stages import candidates as candidates_stage

MODELS = ('sft', 'rl')


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """How the test lists are decoded and shown; all our choice.

  Attributes:
    max_lists: test lists that are re-ranked, drawn by the seed; 0 for all.
    batch_size: lists decoded at a time.
    chunk: lists between two points at which an interrupted run resumes.
    examples: lists on the page.
  """

  max_lists: int = 0
  batch_size: int = 64
  chunk: int = 512
  examples: int = 10


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
  return reporting.Test(
    store,
    found,
    [store.history(user, position) for user, position in pairs],
    found.candidates[np.arange(len(found)), found.target],
  )


def _answers(
  test: reporting.Test, stage: str, cfg: EvaluateConfig, context: runner.Context
) -> list[dict]:
  """Decodes a model's answers, a chunk at a time; a chunk on disk is kept."""
  path = context.directory / f'answers_{stage}.jsonl'
  if path.exists():
    return list(files.read_jsonl(path))
  parts = context.directory / f'parts_{stage}'
  parts.mkdir(exist_ok=True)
  model, answers = None, []
  for start in range(0, len(test.lists), cfg.chunk):
    part = parts / f'{start:09d}.json'
    if not part.exists():
      if model is None:
        model = ranker.load(context.workdir, stage, context.mesh)
      rows = slice(start, start + cfg.chunk)
      incoming = [row[row >= 0] for row in test.lists.candidates[rows]]
      rankings = model.rank(
        test.histories[rows], incoming, cfg.batch_size, f'evaluate, {stage}'
      )
      files.write_json(
        part,
        [
          {
            'user': int(user),
            'position': int(position),
            'order': ranking.order.tolist(),
            'explanation': ranking.explanation,
            'valid': ranking.valid,
            'tokens': ranking.tokens,
          }
          for user, position, ranking in zip(
            test.lists.user[rows],
            test.lists.position[rows],
            rankings,
            strict=True,
          )
        ],
      )
    answers += files.read_json(part)
  files.write_jsonl(path, answers)
  shutil.rmtree(parts)
  return answers


def _baselines(
  test: reporting.Test,
  config: ml_collections.ConfigDict,
  context: runner.Context,
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
  directory = context.input('candidates') / 'sasrec'
  if directory.exists():
    section = config_lib.build(
      candidates_stage.CandidatesConfig, config.candidates
    ).sasrec
    model = sasrec.load(
      store.dataset.num_items,
      config_lib.build(sasrec.SASRecConfig, section),
      context.mesh,
      directory,
    )
    keys = sasrec.scores(model, test.histories, real)
    systems['sasrec'] = results.reorder(incoming, keys)
  return systems


@runner.stage(
  'evaluate', sections=('evaluate', 'text'), inputs=reporting.EARLIER
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Re-ranks the test lists and writes the report."""
  started = time.monotonic()
  cfg = config_lib.build(EvaluateConfig, config.evaluate)
  store = artifacts.Artifacts(config, context.workdir)
  test = _read_test(store, cfg, context.seed)
  systems = _baselines(test, config, context)
  for stage in MODELS:
    answers = _answers(test, stage, cfg, context)
    systems[stage] = results.from_rankings(
      test.lists.candidates,
      [answer['order'] for answer in answers],
      [answer['valid'] for answer in answers],
    )
  report = reporting.build(config, context, test, systems)
  report['seconds']['evaluate'] = round(time.monotonic() - started, 1)
  examples = reporting.draw_examples(test, answers, cfg.examples, context.seed)
  document = page.build(report, curves.draw(context.workdir), examples)
  files.write_json(context.workdir / 'report.json', report)
  files.atomic_write(context.workdir / 'report.html', document)
  return report['rerank']
