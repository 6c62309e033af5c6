"""Paired bootstrap over lists: the interval of a difference of two systems.

Both systems are scored on the same lists, so lists are drawn, not scores: the
spread that both share cancels. Efron and Tibshirani (1993), chapter 13,
percentile interval. Lists of one user resemble each other: where users have
several, users are drawn with all their lists, or the interval is too narrow
(Davison and Hinkley, 1997, section 3.8).
"""

from collections.abc import Mapping

import numpy as np

SAMPLES = 10_000
_CHUNK = 4_000_000  # drawn lists at a time, about 100 MB


def _resampled_means(
  sums: np.ndarray, sizes: np.ndarray, samples: int, seed: int
) -> np.ndarray:
  """Means over clusters drawn with replacement.

  Args:
    sums: [C, M], over the lists of each cluster.
    sizes: [C], the number of its lists.
    samples: number of draws.
    seed: of the draws.

  Returns:
    [samples, M]: the sum over the lists drawn by their number, which differs
    from draw to draw where clusters differ in size (a ratio estimator).
  """
  rng = np.random.default_rng(seed)
  clusters = len(sums)
  rows = max(1, _CHUNK // clusters)
  means = []
  for start in range(0, samples, rows):
    count = min(rows, samples - start)
    drawn = rng.integers(clusters, size=(count, clusters), dtype=np.int32)
    drawn = drawn + clusters * np.arange(count, dtype=np.int64)[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * clusters)
    times = times.reshape(count, clusters)
    means.append(times @ sums / (times @ sizes)[:, None])
  return np.concatenate(means)


def _clusters(
  values: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Adds up `values` [N, M] by group; without groups each list is its own."""
  if groups is None:
    return values, np.ones(len(values), np.int64)
  groups = np.asarray(groups)
  if groups.shape != values.shape[:1]:
    raise ValueError(
      f'groups has the shape {groups.shape}; give one group for each of the '
      f'{len(values)} lists.'
    )
  _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
  sums = np.zeros((len(sizes), values.shape[1]))
  np.add.at(sums, group, values)
  return sums, sizes


def paired_difference(
  left: Mapping[str, np.ndarray],
  right: Mapping[str, np.ndarray],
  seed: int,
  *,
  samples: int = SAMPLES,
  level: float = 0.95,
  groups: np.ndarray | None = None,
) -> dict[str, list[float]]:
  """Compares two systems list by list.

  Args:
    left: metric name to float [N], one value for each list.
    right: the same metrics of the other system on the same lists.
    seed: of the draws; the same seed gives the same interval.
    samples: number of draws (our choice).
    level: coverage of the interval.
    groups: int [N], which lists are drawn together, such as each one's user;
      None draws each alone. The mean is over lists either way. It takes dozens
      of groups: of few the interval is too narrow, of one it has no width.

  Returns:
    Metric name to `[mean(left) - mean(right), low, high]`.

  Raises:
    ValueError: other metrics, or another number of lists, on one side, or
      another number of groups.
  """
  names = list(left)
  if set(names) != set(right):
    raise ValueError(
      f'The systems have the metrics {sorted(left)} and {sorted(right)}; '
      'compare systems that were scored alike.'
    )
  shapes = {np.shape(side[name]) for side in (left, right) for name in names}
  if len(shapes) != 1 or len(next(iter(shapes))) != 1 or (0,) in shapes:
    raise ValueError(
      f'The metrics have the shapes {sorted(shapes)}; a paired bootstrap '
      'needs one value for each list, on the same lists and at least one.'
    )
  delta = np.stack(
    [np.subtract(left[name], right[name], dtype=np.float64) for name in names],
    axis=1,
  )
  means = _resampled_means(*_clusters(delta, groups), samples, seed)
  tail = (1 - level) / 2
  low, high = np.quantile(means, [tail, 1 - tail], axis=0)
  return {
    name: [float(delta[:, i].mean()), float(low[i]), float(high[i])]
    for i, name in enumerate(names)
  }
