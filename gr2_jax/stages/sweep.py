"""Runs one config with many changes and seeds, and lays the results out.

Every run has its own directory, so a sweep that was cut off continues where it
stopped: finished stages are skipped.
"""

import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import experiment, files, processes, progress
from gr2_jax.report import pooled, sweeps, terminal
from gr2_jax.run import lock
from gr2_jax.stages import pipeline

_NAME = re.compile(r'[\w+.-]+')
# What is reported of the seeds of one config.
_COLUMNS = ('evaluate.n', 'evaluate.hit_rate')


def run(
  sweep: ml_collections.ConfigDict, workdir: pathlib.Path, redo: bool = False
) -> dict:
  """Makes all runs of a sweep.

  Args:
    sweep: `base`, a whole config; `runs`, pairs of a name and its changes
      (pairs of dotted keys and values); `seeds`; `stages` to run; `share`,
      pairs of a key of the config that takes a path and the artifact of the
      first run that all runs get there; `columns`, `stage.number` of what is
      reported, in sections `evaluate.systems.rl.ndcg@5`. And where wanted,
      `branch`, the last stage that all runs of a seed share, made once by the
      base; `curves`, `stage.metric` of what is kept step by step.
    workdir: gets `NAME/seed_N/`, `sweep.json` and, with curves, `sweep.html`.
    redo: make finished stages again that do not fit the config.

  Returns:
    What `sweep.json` holds: `runs`, with each one's name, seed, changes and
    results, and where they were evaluated, `pooled`, name to `pooled.pool`.

  Raises:
    ValueError: a name that is no file name, a key that the config lacks, a run
      whose settings are wrong, a column that no summary has, or finished stages
      that do not fit.
    RuntimeError: another process makes runs in the workdir.
  """
  runs = [(name, dict(changes)) for name, changes in sweep.runs]
  for name, changes in runs:
    if not _NAME.fullmatch(name):
      raise ValueError(f'The run {name!r} cannot be a directory: rename it.')
    experiment.read(changed(sweep.base, changes, 0))
  pairs = [(*entry, seed) for entry in runs for seed in sweep.seeds]
  with lock.hold(workdir):
    return _make(sweep, workdir, pairs, redo)


def _make(
  sweep: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  pairs: Sequence[tuple[str, dict, int]],
  redo: bool,
) -> dict:
  """Makes the runs, (name, changes, seed) each, and writes what was found."""
  shared = _share(sweep, workdir / '_shared', redo)
  found = []
  with progress.bar(total=len(pairs), desc='sweep', unit='run') as bar:
    for name, changes, seed in pairs:
      config = changed(sweep.base, {**shared, **changes}, seed)
      directory = workdir / name / f'seed_{seed}'
      if sweep.get('branch'):
        base = changed(sweep.base, shared, seed)
        _branch(base, sweep.branch, directory, redo)
      pipeline.run(config, directory, sweep.stages, redo=redo)
      entry = {'name': name, 'seed': seed, 'changes': changes}
      entry['results'] = {c: _read(directory, c) for c in sweep.columns}
      if sweep.get('curves'):
        entry['curves'] = {c: _curve(directory, c) for c in sweep.curves}
      found.append(entry)
      bar.update()
  document = {'base': config_lib.to_dict(sweep.base), 'runs': found}
  if 'evaluate' in sweep.stages:
    names = dict.fromkeys(name for name, *_ in pairs)
    document['pooled'] = _pool(workdir, names, sweep.seeds)

  def finish() -> None:
    files.write_json(workdir / 'sweep.json', document)
    if sweep.get('curves'):
      files.atomic_write(workdir / 'sweep.html', sweeps.build(document))

  processes.on_first(finish)
  return document


def of_seeds(
  config: ml_collections.ConfigDict, seeds: Sequence[int]
) -> ml_collections.ConfigDict:
  """Makes a sweep of one config: a run a seed, without other changes.

  Args:
    config: a whole config.
    seeds: the seeds.
  """
  return ml_collections.ConfigDict(
    {
      'base': config,
      'stages': list(pipeline.STAGES),
      'seeds': list(seeds),
      'share': [],
      'runs': [('run', ())],
      'columns': list(_COLUMNS),
    }
  )


def _branch(
  base: ml_collections.ConfigDict,
  last: str,
  directory: pathlib.Path,
  redo: bool,
) -> None:
  """Gives a run the stages up to `last` of the run that its seed shares."""
  names = list(pipeline.STAGES)
  names = names[: names.index(last) + 1]
  shared = directory.parents[1] / '_shared' / directory.name
  pipeline.run(base, shared, names, redo=redo)

  def copy() -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
      if not (directory / name).exists():
        part = directory / f'{name}.part'
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(shared / name, part)
        os.replace(part, directory / name)

  processes.on_first(copy)


def _pool(
  workdir: pathlib.Path, names: Iterable[str], seeds: Sequence[int]
) -> dict[str, dict]:
  """Pools the seeds of each run."""
  own = lambda name, seed: workdir / name / f'seed_{seed}' / 'evaluate'
  return {
    name: pooled.pool([own(name, seed) / pooled.FILE for seed in seeds], 0)
    for name in names
  }


def _curve(workdir: pathlib.Path, column: str) -> list[list[float]]:
  """Reads `stage.metric` as [[steps], [values]], to four digits."""
  stage, _, name = column.partition('.')
  records = list(files.read_jsonl(workdir / stage / 'metrics.jsonl'))
  found = [(r['step'], round(r[name], 4)) for r in records if name in r]
  if not found:
    raise ValueError(
      f'The curve {column!r} is not in the metrics of {stage!r}, which are '
      f'{sorted({key for record in records for key in record})}.'
    )
  return [list(part) for part in zip(*found, strict=True)]


def table(document: Mapping[str, Any]) -> str:
  """Lays a sweep out: a line a run, mean and deviation over its seeds.

  Args:
    document: from `run`.

  Returns:
    Lines for the terminal; of a list, the mean of each entry. Below them the
    pooled tables of evaluated runs.
  """
  by_name: dict[str, list[dict]] = {}
  for entry in document['runs']:
    by_name.setdefault(entry['name'], []).append(entry['results'])
  columns = list(document['runs'][0]['results'])
  cells = [['run', 'seeds', *map(_title, columns)]]
  for name, results in by_name.items():
    values = [_cell([r[c] for r in results]) for c in columns]
    cells.append([name, str(len(results)), *values])
  parts = [terminal.rows(cells)]
  for name, found in document.get('pooled', {}).items():
    parts.append(f'{name}\n{pooled.table(found)}')
  return '\n\n'.join(parts)


def _title(column: str) -> str:
  """Names a column: of `evaluate.systems.rl.recall@1`, `rl.recall@1`."""
  return column.partition('.')[2].removeprefix('systems.')


def _cell(values: Sequence[Any]) -> str:
  """Writes numbers of several seeds as mean and standard deviation."""
  if isinstance(values[0], list):
    numbers = np.array(values, float).mean(0)
    return ' '.join(f'{x:.3g}' for x in numbers)
  numbers = np.array(values, float)
  if not numbers.any():
    return '0'
  spread = f' ±{numbers.std(ddof=1):.2g}' if len(numbers) > 1 else ''
  return f'{numbers.mean():.4g}{spread}'


def changed(
  base: ml_collections.ConfigDict, changes: Mapping[str, Any], seed: int
) -> ml_collections.ConfigDict:
  """Returns a copy of a config with changes and a seed.

  Args:
    base: a whole config.
    changes: dotted keys and their values.
    seed: the run's.

  Raises:
    ValueError: a key that the config lacks.
  """
  config = base.copy_and_resolve_references()
  config.seed = seed
  for key, value in changes.items():
    section, _, name = key.rpartition('.')
    holder = config
    for part in filter(None, section.split('.')):
      holder = holder.get(part)
      if not isinstance(holder, ml_collections.ConfigDict):
        raise ValueError(f'The config has no section for {key!r}.')
    if name not in holder:
      raise ValueError(
        f'The config has no {key!r}; its section has {sorted(holder)}.'
      )
    holder[name] = value
  return config


def _share(
  sweep: ml_collections.ConfigDict, workdir: pathlib.Path, redo: bool
) -> dict[str, str]:
  """Makes what all runs share, by the base config itself.

  What that sets already, such as given item vectors, is left out.
  """
  share = {k: path for k, path in sweep.share if not _get(sweep.base, k)}
  if not share:
    return {}
  names = list(pipeline.STAGES)
  last = max(names.index(path.split('/')[0]) for path in share.values())
  base = changed(sweep.base, {}, sweep.seeds[0])
  pipeline.run(base, workdir, names[: last + 1], redo=redo)
  return {key: str((workdir / path).absolute()) for key, path in share.items()}


def _get(config: ml_collections.ConfigDict, key: str) -> Any:
  for part in key.split('.'):
    config = config[part]
  return config


def _read(workdir: pathlib.Path, column: str) -> Any:
  """Reads `stage.number` from a stage's summary, of a section by more dots."""
  stage, *names = column.split('.')
  found = files.read_json(workdir / stage / 'summary.json')
  for name in names:
    if not isinstance(found, dict) or name not in found:
      has = sorted(found) if isinstance(found, dict) else found
      raise ValueError(
        f'The column {column!r} is not in the summary of {stage!r}: there is '
        f'no {name!r} in {has}.'
      )
    found = found[name]
  return found
