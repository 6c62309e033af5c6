"""Reasoning traces: a teacher ranks and explains the lists of SFT.

Writes `workdir/traces/traces.jsonl`, one accepted trace a line: `user`,
`position`, `candidates` (item indices in pre-rank order), `target` (the true
item's index in the catalogue; of a graded list the best graded), `ranking` (the
list that is trained on), `explanation` (its words), their length in `tokens`,
`mode`, `attempt`; and the acceptance report as summary.

`answers/` holds every answer that a teacher ever gave here, kept or rejected
(`teacher/journal.py`). All else is made from it, so a run that was cut off
asks for what is missing and ends in the same bytes. The folder stays when a
changed config makes the stage again: a language model's answers cost money, and
with more lists, more attempts or another acceptance they are still good.

The rules teacher counts which item follows which in all training parts. A list
of the folds asks about a purchase that is among them, so its ranking is better
informed than that of a list held out; its words name an order of buying only
where it was seen `traces.rules.least_seen` times.
"""

import dataclasses
from collections.abc import Sequence

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, processes
from gr2_jax.run import artifacts, runner
from gr2_jax.stages import requests, teachers
from gr2_jax.teacher import (
  acceptance,
  asker,
  base,
  explanations,
  journal,
  sampling,
)
from gr2_jax.text import answer, encoding, semantic_ids


@runner.stage(
  'traces',
  sections=('text', 'traces'),
  inputs=('data', 'sid', 'midtrain', 'candidates'),
  keep=('answers',),
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Asks the teacher about the lists of SFT (`Artifacts.sft_lists`).

  Of several processes the first one asks.

  Raises:
    ValueError: no list with a target, or no trace accepted.
    asker.FirstAnswersError: the first answers of a language model are all
      rejected.
  """
  return processes.on_first(_sample, config, context)


def _sample(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  cfg = config_lib.build(requests.TracesConfig, config.traces)
  store = artifacts.Artifacts(config, context.workdir)
  lists = store.sft_lists()
  lists = _draw(lists, cfg.lists or len(lists), (context.seed, 0))
  sampler = _Sampler(cfg, store, context, teachers.make(config, store, context))
  # The rules cost nothing.
  insist = cfg.teacher == requests.RULES
  insist |= config.get('endpoint', {}).get('insist', False)
  traces, summary = sampler.sample(lists, insist)
  if not traces:
    raise ValueError(
      f'None of {len(lists)} lists got a trace '
      f'({acceptance.advice(summary["rejected"])}). Lists whose attempts are '
      'spent are asked again only with more traces.attempts (now '
      f'{cfg.attempts}).'
    )
  files.write_jsonl(context.directory / 'traces.jsonl', traces)
  return {
    'teacher': sampler.teacher.name,
    'mode': cfg.mode,
    **summary,
    'quality': sampler.quality(traces),
  }


class _Sampler:
  """Samples traces of lists."""

  def __init__(
    self,
    cfg: requests.TracesConfig,
    store: artifacts.Artifacts,
    context: runner.Context,
    teacher: base.Teacher,
  ):
    self.teacher = teacher
    self._cfg, self._store, self._context = cfg, store, context
    self._shown = teachers.history_items(cfg, store)
    self._acceptance = acceptance.Acceptance(
      fits=lambda text: _length(store, text) <= cfg.explanation_tokens,
      citations=semantic_ids.Citations(store.sids),
      names_top=cfg.teacher != requests.RULES,
      near_duplicate=cfg.near_duplicate,
    )

  def sample(
    self, lists: artifacts.CandidateLists, insist: bool
  ) -> tuple[list[dict], dict]:
    """Returns lines of `traces.jsonl` and the acceptance report."""
    tasks = self._tasks(lists)
    traces, tally = sampling.collect(
      self.teacher,
      tasks,
      mode=self._cfg.mode,
      attempts=self._cfg.attempts,
      acceptance=self._acceptance,
      seed=self._context.seed,
      journal=self._journal(),
      insist=insist,
    )
    lines = [
      {
        'user': tasks[trace.row].user,
        'position': tasks[trace.row].position,
        'candidates': tasks[trace.row].request.candidates.tolist(),
        'target': tasks[trace.row].target,
        'ranking': trace.ranking,
        'explanation': trace.explanation,
        'mode': self._cfg.mode,
        'attempt': trace.attempt,
        'tokens': _length(self._store, trace.explanation),
      }
      for trace in traces
    ]
    lengths = [line['tokens'] for line in lines]
    return lines, sampling.summarise(tally, traces, lists.target, lengths)

  def quality(self, lines: Sequence[dict]) -> dict:
    """Measures the explanations of `sample`, as answers hold them."""
    return explanations.measure(
      [
        encoding.close_explanation(
          line['explanation'],
          self._store.sids[line['ranking'][0]],
        )
        for line in lines
      ],
      [self._history(line['user'], line['position']) for line in lines],
      [line['ranking'] for line in lines],
      self._acceptance.citations,
    )

  def _journal(self) -> journal.Journal:
    """Opens the answers of all that shapes them beside the lists."""
    inputs = self._context.key['inputs']
    identity = {
      'teacher': self.teacher.name,
      'identity': self.teacher.identity,
      'mode': self._cfg.mode,
      'seed': self._context.seed,
      # The catalogue, and its names.
      'data': inputs['data'],
      'sid': inputs['sid'],
    }
    return journal.Journal(self._context.directory / 'answers', identity)

  def _tasks(self, lists: artifacts.CandidateLists) -> list[asker.Task]:
    tasks = []
    for row, place in enumerate(lists.target.tolist()):
      asked = requests.request(self._store, lists, row)
      # What is not shown cannot be cited.
      asked = dataclasses.replace(asked, history=asked.history[-self._shown :])
      target = int(lists.candidates[row, place])
      where = int(lists.user[row]), int(lists.position[row])
      tasks.append(asker.Task(*where, asked, target))
    return tasks

  def _history(self, user: int, position: int) -> np.ndarray:
    return self._store.history(user, position)[-self._shown :]


def _draw(
  lists: artifacts.CandidateLists, number: int, seed: tuple[int, int]
) -> artifacts.CandidateLists:
  """Draws lists, in their order; a larger number adds to those of a smaller."""
  rows = np.random.default_rng(seed).permutation(len(lists))[:number]
  return lists.take(np.sort(rows))


def _length(store: artifacts.Artifacts, explanation: str) -> int:
  """Tokens of an explanation's words inside an answer."""
  text = answer.clean_explanation(explanation)
  return len(store.vocab.encode(text, added='sids'))
