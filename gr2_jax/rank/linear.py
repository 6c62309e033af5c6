"""The linear listwise model: a softmax over a list, weights on its columns.

It is the bar: a re-ranker has to beat what its evidence says by itself. The
likelihood is that of the first choice in Plackett-Luce, as in ListNet's top
one (Cao et al., 2007) with one true item; the rest is our choice.
"""

import numpy as np

# Newton's method squares its error in each step once it is near; from 0 it
# takes about ten.
_STEPS = 100
_DONE = 1e-12


def fit(
  features: np.ndarray,
  mask: np.ndarray,
  target: np.ndarray,
  l2: float = 1e-3,
  prior: np.ndarray | None = None,
) -> np.ndarray:
  """Finds the weights that make the true items likeliest.

  Maximises mean log softmax(features @ w)[target] - l2 / 2 |w - prior|^2, which
  is strictly concave, by Newton's method from the prior: the same numbers give
  the same weights.

  Args:
    features: float [N, K, F], the columns of N lists.
    mask: bool [N, K], which entries are no padding.
    target: int [N], place of the true item.
    l2: weight of the penalty, above 0; small beside columns of deviation 1.
    prior: float [F], the weights to stay near; 0 if None.

  Returns:
    float64 [F], the weights.

  Raises:
    ValueError: no list, shapes that do not fit, a target that is no real entry,
      numbers that are not finite, or l2 of 0 or less.
    RuntimeError: no optimum in 100 steps.
  """
  features = np.asarray(features, np.float64)
  mask, target = np.asarray(mask, bool), np.asarray(target)
  _check(features, mask, target, l2)
  features = np.where(mask[..., None], features, 0.0)
  prior = np.zeros(features.shape[-1]) if prior is None else prior
  prior = np.asarray(prior, np.float64)
  lists, penalty = (features, mask, target), {'l2': l2, 'prior': prior}
  weights = prior
  value, gradient, hessian = _objective(weights, *lists, **penalty)
  for _ in range(_STEPS):
    step = np.linalg.solve(hessian, gradient)
    # Twice what the step gains, if the objective is a parabola there.
    gain = float(gradient @ step)
    length = 1.0
    while True:
      tried = weights - length * step
      found = _objective(tried, *lists, **penalty)
      # Near the optimum what is gained is less than rounding can tell.
      if gain <= _DONE or found[0] <= value - 1e-4 * length * gain:
        break
      length /= 2
    weights, (value, gradient, hessian) = tried, found
    if gain <= _DONE:
      return weights
  raise RuntimeError(
    f'No optimum after {_STEPS} steps, the last gains {gain:.2g}: raise l2 '
    f'from {l2}.'
  )


def utilities(
  weights: np.ndarray, features: np.ndarray, mask: np.ndarray
) -> np.ndarray:
  """Computes the utility of each candidate: sorted, they are the ranking.

  Args:
    weights: float [F], from `fit`.
    features: float [N, K, F].
    mask: bool [N, K], which entries are no padding.

  Returns:
    float64 [N, K]; -inf in padding.

  Raises:
    ValueError: another number of columns than of weights.
  """
  weights = np.asarray(weights, np.float64)
  if weights.shape != np.shape(features)[-1:]:
    raise ValueError(
      f'{weights.size} weights for features of the shape '
      f'{np.shape(features)}; give one weight a column.'
    )
  # Not a matrix product, whose sums may depend on how many lists there are.
  total = (np.asarray(features, np.float64) * weights).sum(axis=-1)
  return np.where(mask, total, -np.inf)


def _objective(
  weights: np.ndarray,
  features: np.ndarray,
  mask: np.ndarray,
  target: np.ndarray,
  *,
  l2: float,
  prior: np.ndarray,
) -> tuple[float, np.ndarray, np.ndarray]:
  """Returns what `fit` minimises (minus its objective), gradient, Hessian."""
  count, size = len(features), features.shape[-1]
  utility = utilities(weights, features, mask)
  utility -= utility.max(axis=1, keepdims=True)
  odds = np.exp(utility)
  total = odds.sum(axis=1)
  chances = odds / total[:, None]
  rows = np.arange(count)
  value = np.mean(np.log(total) - utility[rows, target])
  mean = np.einsum('nk,nkf->nf', chances, features)
  gradient = (mean - features[rows, target]).mean(axis=0)
  centred = (features - mean[:, None]) * np.sqrt(chances)[..., None]
  flat = centred.reshape(-1, size)
  hessian = flat.T @ flat / count
  away = weights - prior
  return (
    float(value + l2 / 2 * away @ away),
    gradient + l2 * away,
    hessian + l2 * np.eye(size),
  )


def _check(
  features: np.ndarray, mask: np.ndarray, target: np.ndarray, l2: float
) -> None:
  shape = features.shape
  if len(shape) != 3 or mask.shape != shape[:2] or target.shape != shape[:1]:
    raise ValueError(
      f'Features {shape}, mask {mask.shape} and target {target.shape} do not '
      'fit; give [N, K, F], [N, K] and [N].'
    )
  if not shape[0]:
    raise ValueError('No list to fit the linear model on; give at least one.')
  inside = (target >= 0) & (target < shape[1])
  real = inside & mask[np.arange(shape[0]), np.where(inside, target, 0)]
  if not real.all():
    row = int(np.argmin(real))
    raise ValueError(
      f'The target of list {row} is place {target[row]}, where it has no item: '
      'fit on lists that hold their target.'
    )
  if not np.isfinite(features[mask]).all():
    raise ValueError('Features are not finite; see `evidence.Evidence`.')
  if not l2 > 0:
    raise ValueError(
      f'l2 = {l2}: without a penalty lists that are told apart perfectly have '
      'no finite weights; give more than 0.'
    )
