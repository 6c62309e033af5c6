"""Several runs of one config as one result: means over seeds, pooled lists.

Each evaluated run leaves `places.npz`: whose list each test list is, and where
each system puts its true item.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr2_jax import files
from gr2_jax.rank import bootstrap, metrics
from gr2_jax.report import results, terminal

FILE = 'places.npz'
_SHOWN = ('recall@1', 'recall@5', 'ndcg@5')


def save(
  path: pathlib.Path,
  users: np.ndarray,
  systems: Mapping[str, results.System],
  targets: np.ndarray,
) -> None:
  """Writes where each system puts the true items.

  Args:
    path: the file.
    users: int [N], whose lists they are.
    systems: by name.
    targets: int32 [N], the true items.
  """
  places = {
    name: metrics.find_positions(system.orders, targets)
    for name, system in systems.items()
  }
  files.atomic_savez(path, users=np.asarray(users), **places)


def pool(paths: Sequence[pathlib.Path], seed: int) -> dict[str, Any]:
  """Joins runs on the same users.

  Args:
    paths: what `save` wrote, one file a run.
    seed: of the bootstrap.

  Returns:
    `lists`, of each run; `systems`, name to metric to [mean, standard deviation
    over the runs] (the deviation of one run is 0); `deltas`, 'left-right' of
    `results.DELTAS` to metric to [delta, low, high], a paired bootstrap of 95 %
    over all lists of all runs, in which a user is drawn with the lists of all
    runs. The intervals hold what differs between users, and of what differs
    between seeds only what these seeds show.

  Raises:
    ValueError: runs that have other systems than the first.
  """
  runs = _read(paths)
  users = np.concatenate([run.pop('users') for run in runs])
  values = [
    {
      name: metrics.by_list(places, results.RECALL, results.NDCG)
      for name, places in run.items()
    }
    for run in runs
  ]
  systems = results.ordered(values[0])
  joined = {
    name: {
      metric: np.concatenate([run[name][metric] for run in values])
      for metric in measured
    }
    for name, measured in systems.items()
  }
  return {
    'lists': [len(next(iter(run.values()))) for run in runs],
    'systems': {
      name: {
        metric: _spread([run[name][metric].mean() for run in values])
        for metric in measured
      }
      for name, measured in systems.items()
    },
    'deltas': {
      f'{left}-{right}': bootstrap.paired_difference(
        joined[left], joined[right], seed, groups=users
      )
      for left, right in results.DELTAS
      if left in joined and right in joined
    },
  }


def _read(paths: Sequence[pathlib.Path]) -> list[dict[str, np.ndarray]]:
  runs = []
  for path in paths:
    runs.append(files.read_npz(path))
    if set(runs[-1]) != set(runs[0]):
      raise ValueError(
        f'{path} has the systems {sorted(set(runs[-1]) - {"users"})}, '
        f'{paths[0]} has {sorted(set(runs[0]) - {"users"})}: pool runs of one '
        'config.'
      )
  return runs


def _spread(means: Sequence[float]) -> list[float]:
  deviation = np.std(means, ddof=1) if len(means) > 1 else 0.0
  return [float(np.mean(means)), float(deviation)]


def table(pooled: Mapping[str, Any]) -> str:
  """Lays pooled runs out for a terminal.

  Args:
    pooled: from `pool`.

  Returns:
    Two tables: systems with their deviation over runs, and the differences over
    all lists with their intervals.
  """
  cells = [[f'{len(pooled["lists"])} runs', *_SHOWN]]
  for name, measured in pooled['systems'].items():
    numbers = (measured[metric] for metric in _SHOWN)
    cells.append(
      [name, *(f'{mean:.4f} ±{spread:.4f}' for mean, spread in numbers)]
    )
  deltas = [[f'{sum(pooled["lists"])} lists', *_SHOWN]]
  for name, measured in pooled['deltas'].items():
    deltas.append([name, *(results.interval(measured[x]) for x in _SHOWN)])
  return f'{terminal.rows(cells)}\n\n{terminal.rows(deltas)}'
