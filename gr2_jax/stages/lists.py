"""Candidate lists from a retriever.

Letters: N lists, K candidates a list, n items found for each prompt, F columns.
"""

from collections.abc import Mapping

import numpy as np

from gr2_jax import files, processes, progress
from gr2_jax.rank import metrics
from gr2_jax.run import artifacts
from gr2_jax.stages import retrievers


def collect(
  sources: retrievers.Sources,
  name: str,
  label: str,
  users: np.ndarray,
  positions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds lists, a chunk at a time; a chunk on disk is kept.

  Rows go by the length of their history, so that a chunk fills few buckets.

  Args:
    sources: the retrievers.
    name: which of them.
    label: which lists: tells their chunks from others.
    users: int [N].
    positions: int [N].

  Returns:
    items int32 [N, n] and scores float32 [N, n], n = `cfg.length`.
  """
  cfg, parts = sources.cfg, sources.context.directory / 'parts'
  processes.on_first(parts.mkdir, exist_ok=True)
  order = np.lexsort((users, positions))
  none = np.zeros((0, cfg.length))
  found = [(none.astype(np.int32), none.astype(np.float32))]
  paths = {
    start: parts / f'{name}_{label}_{start:09d}.npz'
    for start in range(0, len(order), cfg.chunk)
  }
  missing = processes.on_first(
    lambda: [start for start, path in paths.items() if not path.exists()]
  )
  if missing:
    sources.get(name)  # What it trains has a bar of its own.
  desc = f'candidates, {name}, {label}'
  with progress.bar(
    total=len(order), desc=desc, unit='list', compiles=bool(missing)
  ) as bar:
    for start, path in paths.items():
      chosen = order[start : start + cfg.chunk]
      if start in missing:
        top_k = sources.get(name)
        items, values = top_k(users[chosen], positions[chosen])
        processes.on_first(files.atomic_savez, path, items=items, scores=values)
      arrays = files.read_npz(path, 'items', 'scores')
      found.append((arrays['items'], arrays['scores']))
      bar.update(len(chosen))
  back = np.argsort(order)
  items, values = (np.concatenate(x)[back] for x in zip(*found, strict=True))
  return items, values


def targets(
  store: artifacts.Artifacts, users: np.ndarray, positions: np.ndarray
) -> np.ndarray:
  """Returns the true items at positions [N] of users [N], int32 [N]."""
  dataset = store.dataset
  return dataset.flat[dataset.offsets[users] + positions]


def as_lists(
  sources: retrievers.Sources,
  users: np.ndarray,
  positions: np.ndarray,
  items: np.ndarray,
  values: np.ndarray,
) -> dict[str, np.ndarray]:
  """Makes candidate lists of what was found.

  Args:
    sources: the retrievers.
    users: int32 [N].
    positions: int32 [N].
    items: int32 [N, n].
    values: float32 [N, n], their scores.

  Returns:
    The arrays of a split's file, as `stages/candidates.py` names them.

  Raises:
    ValueError: a list has fewer than K candidates.
  """
  cfg, store = sources.cfg, sources.store
  short = np.flatnonzero((items[:, : cfg.k] < 0).any(axis=1))
  if len(short):
    row = int(short[0])
    raise ValueError(
      f'User {store.dataset.user_ids[users[row]]!r} gets '
      f'{int((items[row] >= 0).sum())} candidates at position '
      f'{positions[row]}, fewer than candidates.k={cfg.k}: lower k, raise '
      'candidates.width, or turn candidates.exclude_seen off.'
    )
  rank = metrics.find_positions(items, targets(store, users, positions))
  return {
    'user': users,
    'position': positions,
    'candidates': items[:, : cfg.k],
    'scores': values[:, : cfg.k],
    'target': np.where(rank < cfg.k, rank, -1).astype(np.int32),
    'rank': rank,
  }


def features(
  sources: retrievers.Sources, arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
  """Computes the evidence columns of lists.

  Args:
    sources: the retrievers; the columns know what they may know.
    arrays: of the lists: `user`, `position`, `candidates`, `scores` and, of
      slates that bring columns of their own, `columns`.

  Returns:
    float32 [N, K, F], as `sources.evidence.names` says.
  """
  return sources.evidence.columns(
    sources.histories(arrays['user'], arrays['position']),
    arrays['candidates'],
    arrays['scores'],
    arrays.get('columns'),
  )
