"""Ranking metrics of lists with one relevant item, as the papers use them.

With one relevant item the ideal DCG is 1, so NDCG@k is 1 / log2(2 + position)
where the 0-based position is below k, and 0 elsewhere: no sort is needed.
"""

from collections.abc import Mapping, Sequence

import numpy as np


def _checked(positions: np.ndarray, k: int) -> np.ndarray:
  positions = np.asarray(positions)
  if positions.ndim != 1 or positions.size == 0:
    raise ValueError(
      f'positions has the shape {positions.shape}; metrics need one position '
      'for each list and at least one list. Check that the split is not empty.'
    )
  if not np.issubdtype(positions.dtype, np.integer):
    raise TypeError(
      f'positions are {positions.dtype}; give 0-based integer positions.'
    )
  if k < 1:
    raise ValueError(f'k is {k}; it counts places of the list, from 1.')
  return positions


def recall_by_list(positions: np.ndarray, k: int) -> np.ndarray:
  """Returns for each list whether its target is among the first k.

  Args:
    positions: int [N], 0-based position of the target in each list; a negative
      one means that the list lacks its target.
    k: number of places that count, from 1.

  Returns:
    float64 [N], 1 or 0.

  Raises:
    ValueError: no list, or k below 1.
    TypeError: positions that are no integers.
  """
  positions = _checked(positions, k)
  return ((positions >= 0) & (positions < k)).astype(np.float64)


def ndcg_by_list(positions: np.ndarray, k: int) -> np.ndarray:
  """Discounts each list's hit by the place of its target.

  Args:
    positions: int [N], 0-based position of the target in each list; a negative
      one means that the list lacks its target.
    k: number of places that count, from 1.

  Returns:
    float64 [N] in 0..1.

  Raises:
    ValueError: no list, or k below 1.
    TypeError: positions that are no integers.
  """
  hits = recall_by_list(positions, k)
  return hits / np.log2(np.maximum(positions, 0) + 2.0)


def recall_at_k(positions: np.ndarray, k: int) -> np.float64:
  """Gives the share of lists that have their target in the first k places.

  Args:
    positions: int [N], 0-based position of the target in each list.
    k: number of places that count, from 1.

  Returns:
    The fraction, 0..1.
  """
  return recall_by_list(positions, k).mean()


def ndcg_at_k(positions: np.ndarray, k: int) -> np.float64:
  """Averages `ndcg_by_list` over the lists.

  Args:
    positions: int [N], 0-based position of the target in each list.
    k: number of places that count, from 1.

  Returns:
    The mean, 0..1.
  """
  return ndcg_by_list(positions, k).mean()


def find_positions(items: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Finds each target in its list.

  Args:
    items: int [N, K], the lists, best first; -1 pads.
    targets: int [N], none negative.

  Returns:
    int32 [N], the 0-based position; K where the list lacks the target.
  """
  found = np.asarray(items) == np.asarray(targets)[:, None]
  return np.where(
    found.any(axis=1), found.argmax(axis=1), found.shape[1]
  ).astype(np.int32)


def by_list(
  positions: np.ndarray, recall: Sequence[int], ndcg: Sequence[int]
) -> dict[str, np.ndarray]:
  """Computes several metrics for each list.

  Args:
    positions: int [N], 0-based position of the target in each list.
    recall: the k of each Recall@k.
    ndcg: the k of each NDCG@k.

  Returns:
    `{'recall@k': float64 [N], .., 'ndcg@k': float64 [N], ..}`.
  """
  return {f'recall@{k}': recall_by_list(positions, k) for k in recall} | {
    f'ndcg@{k}': ndcg_by_list(positions, k) for k in ndcg
  }


def mean(metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Averages what `by_list` returns."""
  return {name: float(values.mean()) for name, values in metrics.items()}


def retrieval_metrics(positions: np.ndarray) -> dict[str, float]:
  """Gives the full-catalogue metrics of the report.

  Args:
    positions: int [N], 0-based position of the target in each list of at least
      ten items.

  Returns:
    `{'n', 'recall@5', 'recall@10', 'ndcg@5', 'ndcg@10'}`.
  """
  values = mean(by_list(positions, recall=(5, 10), ndcg=(5, 10)))
  return {'n': len(positions), **values}
