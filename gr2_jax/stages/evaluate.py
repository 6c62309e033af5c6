"""Evaluation: the test lists re-ranked by every system, and the report.

Decodes greedily and writes `workdir/evaluate/answers_{sft,rl}.jsonl`, then
`workdir/report.json` (DESIGN.md, "Fixed names") and `workdir/report.html`.
"""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import time

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.rank import popularity, sasrec
from gr2_jax.report import curves, lists, page, results
from gr2_jax.stages import artifacts, ranker, runner
from gr2_jax.stages import candidates as candidates_stage

MODELS = ('sft', 'rl')
EARLIER = ('data', 'sid', 'midtrain', 'candidates', 'traces', 'sft', 'rl')
_DATASET = ('name', 'users', 'items', 'interactions', 'sha256')


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


@dataclasses.dataclass(frozen=True)
class _Test:
  """The lists under test.

  Attributes:
    store: the run's artifacts.
    lists: N lists that hold their target.
    histories: N arrays of item indices.
    targets: int32 [N].
  """

  store: artifacts.Artifacts
  lists: artifacts.Lists
  histories: list[np.ndarray]
  targets: np.ndarray


def _read_test(
  store: artifacts.Artifacts, cfg: EvaluateConfig, seed: int
) -> _Test:
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
  return _Test(
    store,
    found,
    [store.history(user, position) for user, position in pairs],
    found.candidates[np.arange(len(found)), found.target],
  )


def _answers(
  test: _Test, stage: str, cfg: EvaluateConfig, context: runner.Context
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
  lines = [json.dumps(answer) + '\n' for answer in answers]
  files.atomic_write(path, ''.join(lines))
  shutil.rmtree(parts)
  return answers


def _baselines(
  test: _Test, config: ml_collections.ConfigDict, context: runner.Context
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


def _commit() -> str:
  """Returns the commit of this code, marked where files were changed."""
  root = pathlib.Path(__file__).resolve().parent

  def git(*arguments: str) -> str | None:
    try:
      done = subprocess.run(
        ['git', *arguments], cwd=root, capture_output=True, text=True
      )
    except FileNotFoundError:
      return None
    return done.stdout.strip() if done.returncode == 0 else None

  commit = git('rev-parse', 'HEAD')
  if commit is None:
    return 'unknown (no git repository)'
  changed = git('status', '--porcelain', '--untracked-files=no')
  return f'{commit}-changed' if changed else commit


def _examples(
  test: _Test, answers: list[dict], number: int, seed: int
) -> list[lists.Example]:
  """Draws lists to show."""
  store = test.store
  rows = np.random.default_rng(seed).permutation(len(test.lists))[:number]

  def entry(item: int, target: int = -1) -> lists.Entry:
    record = store.dataset.items[item]
    sid = store.vocab.decode(store.vocab.sid_tokens(store.sids[item]))
    detail = ' · '.join([sid, ' > '.join(record.categories)])
    return lists.Entry(record.title or record.item_id, detail, item == target)

  examples = []
  for row in sorted(rows.tolist()):
    incoming = [int(i) for i in test.lists.candidates[row] if i >= 0]
    answer = answers[row]
    examples.append(
      lists.Example(
        user=store.dataset.user_ids[test.lists.user[row]],
        history=[entry(int(item)) for item in test.histories[row]],
        incoming=[entry(i, int(test.targets[row])) for i in incoming],
        order=[incoming.index(item) for item in answer['order']],
        explanation=answer['explanation'],
        valid=answer['valid'],
      )
    )
  return examples


def _report(
  config: ml_collections.ConfigDict,
  context: runner.Context,
  test: _Test,
  systems: dict[str, results.System],
) -> dict:
  """Puts `report.json` together; `seconds` lacks this stage."""
  summaries = {
    stage: files.read_json(context.input(stage) / 'summary.json')
    for stage in EARLIER
  }
  seconds = {stage: s.pop('seconds') for stage, s in summaries.items()}
  # Speeds differ from run to run; a report is what does not.
  blocks = {
    stage: {k: v for k, v in s.items() if 'per_second' not in k}
    for stage, s in summaries.items()
  }
  found = blocks['candidates']
  table, deltas = results.summarise(
    systems, test.lists.candidates, test.targets, context.seed
  )
  return {
    'config': config_lib.to_dict(config),
    'seed': config.seed,
    'commit': _commit(),
    'dataset': {name: blocks['data'][name] for name in _DATASET},
    'sid': blocks['sid'],
    'midtrain': blocks['midtrain'],
    'source': found['source'],
    'retrieval': found['retrieval'],
    'baselines': found['baselines'],
    'traces': blocks['traces'],
    'sft': blocks['sft'],
    'rl': blocks['rl'],
    'rerank': {
      'n': len(test.lists),
      'k': int(test.lists.candidates.shape[1]),
      'hit_rate': found['hit_rate']['test'],
      'systems': table,
      'deltas': deltas,
    },
    'teacher': blocks['traces']['teacher'],
    'seconds': seconds,
  }


@runner.stage('evaluate', sections=('evaluate', 'text'), inputs=EARLIER)
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
  report = _report(config, context, test, systems)
  report['seconds']['evaluate'] = round(time.monotonic() - started, 1)
  examples = _examples(test, answers, cfg.examples, context.seed)
  document = page.build(report, curves.draw(context.workdir), examples)
  files.write_json(context.workdir / 'report.json', report)
  files.atomic_write(context.workdir / 'report.html', document)
  return report['rerank']
