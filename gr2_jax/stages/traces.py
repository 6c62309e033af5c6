"""Reasoning traces: a teacher ranks and explains the training lists.

Writes `workdir/traces/traces.jsonl`, one accepted trace a line: `user`,
`position`, `candidates` (item indices in pre-rank order), `target` (the true
item's index in the catalogue), `ranking` (the list that is trained on),
`explanation`, `mode`, `attempt`; and the acceptance report as summary.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, progress
from gr2_jax.stages import artifacts, runner
from gr2_jax.teacher import base, rules, sampling
from gr2_jax.text import answer


@dataclasses.dataclass(frozen=True)
class TracesConfig:
  """How traces are sampled.

  Attributes:
    mode: 'rejection' (better on Beauty [P]) or 'targeted'.
    attempts: how often a list is asked at most [G].
    explanation_tokens: budget of an explanation; should be the one of decoding.
    chunk: lists that are asked and written together.
    rules: fields of `rules.RulesConfig`.
  """

  mode: str = sampling.REJECTION
  attempts: int = 8
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

  Raises:
    ValueError: no list with a target, or no trace accepted.
  """
  cfg = config_lib.build(TracesConfig, config.traces)
  store = artifacts.Artifacts(config, context.workdir)
  lists = store.lists('train').hits()
  if not len(lists):
    raise ValueError(
      'No training list holds its target, so there is nothing to explain: '
      'train the retriever longer, or raise candidates.k or data.split.n_train.'
    )
  teacher = rules.RulesTeacher(
    store.dataset,
    store.splits,
    store.sids,
    store.vocab,
    store.prompter.cfg.history_items,
    cfg.explanation_tokens,
    config_lib.build(rules.RulesConfig, cfg.rules),
  )
  parts = context.directory / 'parts'
  parts.mkdir(exist_ok=True)
  tally = sampling.empty_tally(cfg.attempts)
  traces = []
  with progress.bar(total=len(lists), desc='traces', unit='list') as bar:
    for begin in range(0, len(lists), cfg.chunk):
      chunk = lists.take(np.arange(begin, min(begin + cfg.chunk, len(lists))))
      path = parts / f'{begin:09d}.json'
      if not path.exists():
        seed = (context.seed, begin)
        files.write_json(path, _ask(store, teacher, chunk, cfg, seed))
      part = files.read_json(path)
      traces += part['traces']
      tally.add(sampling.Tally(**part['tally']))
      bar.update(len(chunk))
  if not traces:
    raise ValueError(
      f'None of {tally.requested} lists got a trace (turned down: '
      f'{tally.rejected}): raise traces.attempts or use the targeted mode.'
    )
  lengths = [trace.pop('tokens') for trace in traces]
  text = ''.join(json.dumps(trace) + '\n' for trace in traces)
  files.atomic_write(context.directory / 'traces.jsonl', text)
  shutil.rmtree(parts)
  return {
    'teacher': teacher.name,
    'mode': cfg.mode,
    **dataclasses.asdict(tally),
    'explanation_tokens': {
      'mean': round(float(np.mean(lengths)), 1),
      'max': int(np.max(lengths)),
    },
  }


def _ask(
  store: artifacts.Artifacts,
  teacher: base.Teacher,
  lists: artifacts.Lists,
  cfg: TracesConfig,
  seed: tuple[int, ...],
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
  targets = lists.candidates[np.arange(len(lists)), lists.target]
  accepted, tally = sampling.collect(
    teacher,
    requests,
    targets.tolist(),
    cfg.mode,
    cfg.attempts,
    lambda text: _length(store, text) <= cfg.explanation_tokens,
    seed,
  )
  traces = [
    {
      'user': int(lists.user[trace.row]),
      'position': int(lists.position[trace.row]),
      'candidates': requests[trace.row].candidates.tolist(),
      'target': int(targets[trace.row]),
      'ranking': trace.ranking,
      'explanation': trace.explanation,
      'mode': cfg.mode,
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
