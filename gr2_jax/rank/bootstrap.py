"""Paired bootstrap over lists: how far a difference of two systems is luck.

Both systems are scored on the same lists, so lists are drawn, not scores: the
spread that both share cancels. Efron and Tibshirani (1993), chapter 13,
percentile interval.
"""

from collections.abc import Mapping

import numpy as np

SAMPLES = 10_000
_CHUNK = 4_000_000  # drawn lists at a time, about 100 MB


def _resampled_means(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
  """Means [samples, M] of `values` [N, M] over lists drawn with replacement."""
  rng = np.random.default_rng(seed)
  lists = len(values)
  rows = max(1, _CHUNK // lists)
  means = []
  for start in range(0, samples, rows):
    count = min(rows, samples - start)
    drawn = rng.integers(lists, size=(count, lists), dtype=np.int32)
    drawn = drawn + lists * np.arange(count, dtype=np.int64)[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * lists)
    means.append(times.reshape(count, lists) @ values / lists)
  return np.concatenate(means)


def paired_difference(
  left: Mapping[str, np.ndarray],
  right: Mapping[str, np.ndarray],
  seed: int,
  samples: int = SAMPLES,
  level: float = 0.95,
) -> dict[str, list[float]]:
  """Compares two systems list by list.

  Args:
    left: metric name to float [N], one value for each list.
    right: the same metrics of the other system on the same lists.
    seed: of the draws; the same seed gives the same interval.
    samples: number of draws (our choice).
    level: coverage of the interval.

  Returns:
    Metric name to `[mean(left) - mean(right), low, high]`.

  Raises:
    ValueError: other metrics, or another number of lists, on one side.
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
  means = _resampled_means(delta, samples, seed)
  tail = (1 - level) / 2
  low, high = np.quantile(means, [tail, 1 - tail], axis=0)
  return {
    name: [float(delta[:, i].mean()), float(low[i]), float(high[i])]
    for i, name in enumerate(names)
  }
