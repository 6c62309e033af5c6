"""What the report says beside the answers: blocks, examples, the commit."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np
from absl import logging

from gr2_jax import config as config_lib
from gr2_jax import files, processes, version
from gr2_jax.report import kept, lists, results, verdict
from gr2_jax.run import artifacts, runner
from gr2_jax.teacher import explanations
from gr2_jax.text import semantic_ids

# The stages whose summaries the report holds.
EARLIER = (
  'data',
  'sid',
  'midtrain',
  'candidates',
  'traces',
  'sft',
  'rl',
  'direct',
)


# Of the candidates; the last two only of slates: their counts, and what
# retrieval was measured of.
_LISTS = ('lists', 'hit_rate', 'slates', 'retriever')


@dataclasses.dataclass(frozen=True)
class Test:
  """The lists under test.

  Attributes:
    store: the run's artifacts.
    lists: N lists that hold their target.
    histories: N arrays of item indices.
    targets: int32 [N], the true items; of several the best graded, first in
      pre-rank order.
    graded: the lists are slates, which all their grades measure.
  """

  store: artifacts.Artifacts
  lists: artifacts.CandidateLists
  histories: list[np.ndarray]
  targets: np.ndarray
  graded: bool


def draw_examples(
  test: Test, answers: Sequence[Mapping], number: int, seed: int
) -> list[lists.Example]:
  """Draws lists to show.

  Args:
    test: the lists under test.
    answers: the model's answer to each: `order`, `explanation`, `valid`.
    number: how many to draw, at most.
    seed: of the draw.

  Returns:
    The examples, in the order of the lists.
  """
  store = test.store
  rows = np.random.default_rng(seed).permutation(len(test.lists))[:number]

  def entry(item: int, grade: int = 0) -> lists.Entry:
    record = store.dataset.items[item]
    sid = semantic_ids.write(store.sids[item])
    detail = ' · '.join([sid, ' > '.join(record.categories)])
    return lists.Entry(store.title(item), detail, grade > 0)

  examples = []
  for row in sorted(rows.tolist()):
    incoming = [int(i) for i in test.lists.candidates[row] if i >= 0]
    grades = test.lists.grades[row].tolist()
    answer = answers[row]
    examples.append(
      lists.Example(
        user=store.dataset.user_ids[test.lists.user[row]],
        history=[entry(int(item)) for item in test.histories[row]],
        incoming=list(map(entry, incoming, grades)),
        order=[incoming.index(item) for item in answer['order']],
        explanation=answer['explanation'],
        valid=answer['valid'],
        titles=store.titles(answer['explanation']),
      )
    )
  return examples


def measure_explanations(
  test: Test, answers: Mapping[str, Sequence[Mapping]]
) -> dict[str, dict]:
  """Measures what models wrote before their lists.

  Args:
    test: the lists under test.
    answers: by model, the answer to each list: `order`, `explanation`.

  Returns:
    `explanations.measure` of each model's explanations.
  """
  shown = test.store.prompt.history_items
  histories = [history[-shown:] for history in test.histories]
  cited = test.store.citations
  return {
    name: explanations.measure(
      [answer['explanation'] for answer in found],
      histories,
      [answer['order'] for answer in found],
      cited,
    )
    for name, found in answers.items()
  }


def read_summaries(
  workdir: pathlib.Path, stages: Sequence[str]
) -> tuple[dict[str, dict], dict[str, float]]:
  """Reads what finished stages say of themselves.

  Args:
    workdir: of the run.
    stages: their names.

  Returns:
    (stage to summary, stage to seconds). Speeds are left out: they differ from
    run to run, and a report is what does not.
  """
  found = {
    stage: files.read_json(workdir / stage / 'summary.json') for stage in stages
  }
  seconds = {stage: summary.pop('seconds') for stage, summary in found.items()}
  blocks = {
    stage: {k: v for k, v in summary.items() if 'per_second' not in k}
    for stage, summary in found.items()
  }
  return blocks, seconds


def tell(report: Mapping) -> None:
  """Logs what happened to the data, as far as a part of a report knows it.

  Args:
    report: see `report.kept`.
  """
  if not processes.is_first():
    return
  for line in kept.lines(report):
    logging.info('%s', line)
  for line in kept.warnings(report):
    logging.warning('%s', line)


def head(
  config: ml_collections.ConfigDict, blocks: Mapping[str, Mapping]
) -> dict:
  """Returns what every report begins with.

  Args:
    config: of the run.
    blocks: summaries of the stages; 'data', 'sid' and 'midtrain' among them.

  Returns:
    Config, seed, commit, data set, semantic IDs and mid-training.
  """
  return {
    'config': config_lib.to_dict(config),
    'seed': config.seed,
    'commit': version.find_commit(),
    'dataset': blocks['data'],
    'sid': blocks['sid'],
    'midtrain': blocks['midtrain'],
  }


def build(
  config: ml_collections.ConfigDict,
  context: runner.Context,
  test: Test,
  systems: Mapping[str, results.System],
) -> dict:
  """Puts the content of `report.json` together.

  Args:
    config: of the run.
    context: of the stage.
    test: the lists under test.
    systems: what each system made of them.

  Returns:
    The report (results/README.md) with the summaries of the stages
    beside it; `seconds` still lacks the evaluation itself.
  """
  blocks, seconds = read_summaries(context.workdir, EARLIER)
  found = blocks['candidates']
  made = {name: found[name] for name in _LISTS if name in found}
  table, deltas = results.summarise(
    systems,
    test.lists.candidates,
    test.targets,
    context.seed,
    grades=test.lists.grades if test.graded else None,
    users=test.lists.user,
  )
  num_items = test.store.dataset.num_items
  report = {
    **head(config, blocks),
    'source': found['source'],
    **made,
    'retrieval': found['retrieval'],
    'baselines': found['baselines'],
    **{name: blocks[name] for name in ('traces', 'sft', 'rl', 'direct')},
    'rerank': {
      'n': len(test.lists),
      'k': int(test.lists.candidates.shape[1]),
      'hit_rate': found['hit_rate']['test'],
      'coverage': results.coverage(
        test.store.lists('test').candidates, num_items
      ),
      'top_share': results.top_share(systems['rl'].orders),
      'systems': table,
      'deltas': deltas,
    },
    'teacher': blocks['traces']['teacher'],
    'seconds': seconds,
  }
  return {
    'verdict': verdict.sentence(report),
    'warnings': verdict.warnings(report),
    **report,
  }
