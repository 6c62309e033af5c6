"""Reasoning traces: a teacher ranks and explains the training lists.

Writes `workdir/traces/traces.jsonl`, one accepted trace a line: `user`,
`position`, `candidates` (item indices in pre-rank order), `target` (the true
item's index in the catalogue; of a graded list the best graded), `ranking` (the
list that is trained on), `explanation`, its length in `tokens`, `mode`,
`attempt`; `practice.jsonl`, the same for lists without their target (`target`
null); and the acceptance report as summary.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, processes, progress
from gr2_jax.stages import artifacts, runner
from gr2_jax.teacher import base, rules, sampling
from gr2_jax.text import answer


@dataclasses.dataclass(frozen=True)
class TracesConfig:
  """How traces are sampled.

  Attributes:
    mode: 'rejection' (better on Beauty [P]) or 'targeted'.
    attempts: how often a list is asked at most [G].
    practice: how many lists without their target the teacher answers too,
      unchecked, for `sft.practice` [G]; 0 for a pretrained model.
    explanation_tokens: budget of an explanation; should be the one of decoding.
    chunk: lists that are asked and written together.
    rules: fields of `rules.RulesConfig`.
  """

  mode: str = sampling.REJECTION
  attempts: int = 8
  practice: int = 0
  explanation_tokens: int = 40
  chunk: int = 2048
  rules: Mapping = dataclasses.field(default_factory=dict)


@runner.stage(
  'traces',
  sections=('text', 'traces'),
  inputs=('data', 'sid', 'midtrain', 'candidates'),
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Asks the teacher about every training list that holds its target.

  Chunks are written as they are finished, so that an interrupted run goes on
  behind the last of them; the noise of a chunk depends on its number alone.
  Of several processes the first one asks.

  Raises:
    ValueError: no list with a target, or no trace accepted.
  """
  return processes.on_first(_sample, config, context)


def _sample(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  cfg = config_lib.build(TracesConfig, config.traces)
  store = artifacts.Artifacts(config, context.workdir)
  lists = store.lists('train').hits()
  if not len(lists):
    raise ValueError(
      'No training list holds its target, so there is nothing to explain: '
      'train the retriever longer, or raise candidates.k or data.split.n_train.'
    )
  teacher = _teacher(store, cfg)
  parts = context.directory / 'parts'
  parts.mkdir(exist_ok=True)
  fits = lambda text: _length(store, text) <= cfg.explanation_tokens

  def ask(requests, targets, begin):
    seed = (context.seed, begin)
    return sampling.collect(
      teacher, requests, targets, cfg.mode, cfg.attempts, fits, seed
    )

  def practise(requests, targets, begin):
    del targets  # Not among the candidates.
    seed = (context.seed, begin, cfg.attempts)
    return sampling.practise(teacher, requests, fits, seed)

  traces, tally = _by_chunk(store, lists, cfg, parts, cfg.mode, ask)
  if not traces:
    raise ValueError(
      f'None of {tally.requested} lists got a trace (turned down: '
      f'{tally.rejected}): raise traces.attempts or use the targeted mode.'
    )
  others = _without_target(store, cfg.practice, context.seed)
  practice, _ = _by_chunk(
    store, others, cfg, parts, sampling.PRACTICE, practise
  )
  files.write_jsonl(context.directory / 'traces.jsonl', traces)
  files.write_jsonl(context.directory / 'practice.jsonl', practice)
  shutil.rmtree(parts)
  lengths = [trace['tokens'] for trace in traces]
  return {
    'teacher': teacher.name,
    'mode': cfg.mode,
    **dataclasses.asdict(tally),
    'practice': len(practice),
    'explanation_tokens': {
      'mean': round(float(np.mean(lengths)), 1),
      'max': int(np.max(lengths)),
    },
  }


def _teacher(
  store: artifacts.Artifacts, cfg: TracesConfig
) -> rules.RulesTeacher:
  return rules.RulesTeacher(
    store.dataset,
    store.splits,
    store.sids,
    store.vocab,
    store.prompter.cfg.history_items,
    cfg.explanation_tokens,
    config_lib.build(rules.RulesConfig, cfg.rules),
  )


def _without_target(
  store: artifacts.Artifacts, number: int, seed: int
) -> artifacts.Lists:
  """Draws training lists that do not hold their target, in their order."""
  lists = store.lists('train')
  rows = np.flatnonzero(lists.target < 0)
  drawn = np.random.default_rng([seed, 1]).permutation(rows)[:number]
  return lists.take(np.sort(drawn))


def _by_chunk(
  store: artifacts.Artifacts,
  lists: artifacts.Lists,
  cfg: TracesConfig,
  parts: pathlib.Path,
  mode: str,
  ask: Callable[
    [Sequence[base.Request], Sequence[int], int],
    tuple[list[sampling.Trace], sampling.Tally],
  ],
) -> tuple[list[dict], sampling.Tally]:
  """Asks chunk by chunk; a chunk on disk is kept."""
  traces, tally = [], None
  with progress.bar(total=len(lists), desc=mode, unit='list') as bar:
    for begin in range(0, len(lists), cfg.chunk):
      chunk = lists.take(np.arange(begin, min(begin + cfg.chunk, len(lists))))
      path = parts / f'{mode}_{begin:09d}.json'
      if not path.exists():
        files.write_json(path, _ask(store, chunk, mode, begin, ask))
      part = files.read_json(path)
      traces += part['traces']
      new = sampling.Tally(**part['tally'])
      tally = new if tally is None else tally.plus(new)
      bar.update(len(chunk))
  return traces, tally


def _ask(
  store: artifacts.Artifacts,
  lists: artifacts.Lists,
  mode: str,
  begin: int,
  ask: Callable[..., tuple[list[sampling.Trace], sampling.Tally]],
) -> dict:
  """Returns the traces of some lists and their tally, as JSON."""
  requests = [
    # A list shorter than K is filled up with -1.
    base.Request(store.history(user, position), candidates[candidates >= 0])
    for user, position, candidates in zip(
      lists.user.tolist(),
      lists.position.tolist(),
      lists.candidates,
      strict=True,
    )
  ]
  targets = [
    int(row[place]) if place >= 0 else None
    for row, place in zip(lists.candidates, lists.target, strict=True)
  ]
  accepted, tally = ask(requests, targets, begin)
  traces = [
    {
      'user': int(lists.user[trace.row]),
      'position': int(lists.position[trace.row]),
      'candidates': requests[trace.row].candidates.tolist(),
      'target': targets[trace.row],
      'ranking': trace.ranking,
      'explanation': trace.explanation,
      'mode': mode,
      'attempt': trace.attempt,
      'tokens': _length(store, trace.explanation),
    }
    for trace in accepted
  ]
  return {'traces': traces, 'tally': dataclasses.asdict(tally)}


def _length(store: artifacts.Artifacts, explanation: str) -> int:
  """Tokens of an explanation inside an answer."""
  text = answer.clean_explanation(explanation)
  return len(store.vocab.encode(text, added='sids'))
