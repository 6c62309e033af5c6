"""Traces of a finished run, graded by a language model on a server."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, progress
from gr2_jax.run import artifacts, lineage
from gr2_jax.stages import requests
from gr2_jax.teacher import acceptance, asker, base, judge, messages


def run(
  workdir: pathlib.Path | str,
  make: Callable[[messages.Writer], judge.Judge],
  sample: int,
  seed: int = 0,
  insist: bool = False,
) -> dict:
  """Grades some traces and writes `workdir/judge/summary.json`.

  Every score is kept as it comes, in `workdir/judge/scores.jsonl`, with the
  text of an answer that holds none; started again, it asks for what is missing.

  Args:
    workdir: of a run whose traces stage is finished.
    make: makes the judge, given what writes the lists.
    sample: how many traces, drawn by the seed; of more, fewer are a part.
    seed: of the draw.
    insist: continue though the first answers have no score.

  Returns:
    The summary: judge, version and hash of its rubrics, number of traces, and
    by aspect `n`, `mean` and `unreadable`.

  Raises:
    FileNotFoundError: the traces stage is not finished.
    ValueError: nothing to grade, or stages that do not belong together.
    asker.FirstAnswersError: the first answers hold no score.
  """
  workdir = pathlib.Path(workdir).expanduser()
  config = lineage.config(workdir, 'traces')
  store = artifacts.Artifacts(config, workdir)
  traces = list(files.read_jsonl(workdir / 'traces' / 'traces.jsonl'))
  drawn = np.random.default_rng(seed).permutation(len(traces))[:sample]
  if not len(drawn):
    raise ValueError(
      f'--sample={sample} of {len(traces)} traces: grade 1 or more.'
    )
  cfg = config_lib.build(requests.TracesConfig, config.traces)
  grader = make(requests.make_writer(store, cfg))
  asked = [
    (trace, aspect)
    for trace in [traces[row] for row in sorted(drawn.tolist())]
    for aspect in judge.ASPECTS
  ]
  (workdir / 'judge').mkdir(exist_ok=True)
  path = workdir / 'judge' / 'scores.jsonl'
  scores = _scores(path, store, grader, asked, insist)
  summary = {
    **grader.identity,
    'traces': len(drawn),
    'seed': seed,
    **judge.summary(
      (aspect, score) for (_, aspect), score in zip(asked, scores, strict=True)
    ),
  }
  files.write_json(workdir / 'judge' / 'summary.json', summary)
  return summary


def _scores(
  path: pathlib.Path,
  store: artifacts.Artifacts,
  grader: judge.Judge,
  asked: Sequence[tuple[dict, str]],
  insist: bool,
) -> list[int | None]:
  """Returns a score for each (trace, aspect); those on disk are kept."""
  names = [
    config_lib.fingerprint([grader.identity, trace, aspect])
    for trace, aspect in asked
  ]
  known = {}
  if path.exists():
    files.drop_cut_line(path)
    known = {line['name']: line['score'] for line in files.read_jsonl(path)}
  missing = [row for row, name in enumerate(names) if name not in known]
  with progress.bar(
    total=len(asked),
    desc='judge',
    unit='score',
    initial=len(asked) - len(missing),
  ) as bar:
    # Those on trial come first and alone, as in `asker.Trial`.
    for rows in (
      missing[: asker.FIRST_ANSWERS],
      missing[asker.FIRST_ANSWERS :],
    ):
      graded = [(_graded(store, asked[r][0]), asked[r][1]) for r in rows]
      for index, score, text in grader.grade(graded):
        row = rows[index]
        trace, aspect = asked[row]
        line = {'name': names[row], 'aspect': aspect, 'score': score}
        line |= {name: trace[name] for name in ('user', 'position')}
        if score is None:
          line['text'] = text
        files.append_jsonl(path, line)
        known[names[row]] = score
        bar.update()
      in_vain = all(score is None for score in known.values())
      if in_vain and len(rows) == asker.FIRST_ANSWERS and not insist:
        said = 'they hold no score: ' + acceptance.REMEDIES[acceptance.NOT_JSON]
        raise asker.FirstAnswersError(
          asker.failure_message(grader.name, said, text, path)
        )
  return [known[name] for name in names]


def _graded(store: artifacts.Artifacts, trace: dict) -> judge.Graded:
  history = store.history(trace['user'], trace['position'])
  candidates = np.array(trace['candidates'])
  return judge.Graded(
    base.Request(history, candidates), trace['ranking'], trace['explanation']
  )
