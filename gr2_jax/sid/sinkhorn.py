"""Even use of the last codes: Sinkhorn on what collides (LC-Rec).

Items that share their first codes and want the same last one are parted by an
optimal transport in which each last code of their prefix has the same mass: who
is nearest gets it, the others get their next best. Zheng et al., arXiv
2311.09049, "uniform semantic mapping". Our choice: where a prefix has fewer
items than codes, costless dummies take the codes that are left over, so that
no item is sent to a far one; and how the plan is rounded.
"""

from collections import defaultdict

import numpy as np


def plan(
  cost: np.ndarray, epsilon: float = 0.05, iterations: int = 100
) -> np.ndarray:
  """Returns the entropic transport plan between n items and C codes.

  Args:
    cost: float [n, C], e.g. squared distances; scaled to a mean of 1.
    epsilon: weight of the entropy, relative to the mean cost.
    iterations: of Sinkhorn and Knopp's alternation.

  Returns:
    float64 [n, C]: rows sum to 1 / n, columns to 1 / C up to convergence (the
    rows exactly).
  """
  scaled = cost / max(float(cost.mean()), 1e-12) / epsilon
  # In logs: distances of far codes would underflow.
  log_kernel = -scaled
  rows, columns = cost.shape
  v = np.zeros(columns)
  for _ in range(iterations):
    u = -np.log(rows) - _logsumexp(log_kernel + v, 1)
    v = -np.log(columns) - _logsumexp(log_kernel + u[:, None], 0)
  u = -np.log(rows) - _logsumexp(log_kernel + v, 1)
  return np.exp(log_kernel + u[:, None] + v)


def _logsumexp(x: np.ndarray, axis: int) -> np.ndarray:
  top = x.max(axis=axis, keepdims=True)
  return np.log(np.exp(x - top).sum(axis=axis)) + np.squeeze(top, axis)


def last_level(
  codes: np.ndarray, last: np.ndarray, book: np.ndarray
) -> np.ndarray:
  """Parts colliding items by Sinkhorn over the last codes of their prefix.

  Args:
    codes: int [I, L], nearest codes.
    last: float [I, D], residuals before the last level.
    book: float [C, D], the last codebook.

  Returns:
    int32 [I, L]. Within each prefix of L - 1 codes where items collided, items
    take distinct codes in the order of their mass in the plan; they collide
    only where more than C items share the prefix.
  """
  codes = np.array(codes, np.int32)
  groups = defaultdict(list)
  for item, row in enumerate(codes[:, :-1].tolist()):
    groups[tuple(row)].append(item)
  for items in groups.values():
    if len(set(codes[items, -1].tolist())) == len(items):
      continue
    cost = ((last[items][:, None] - book[None]) ** 2).sum(-1)
    dummies = np.zeros((max(len(book) - len(items), 0), len(book)))
    mass = plan(np.concatenate([cost, dummies]).astype(np.float64))
    codes[items, -1] = _round(mass[: len(items)])
  return codes


def _round(mass: np.ndarray) -> np.ndarray:
  """Gives each row a column that no other has, heaviest entries first."""
  rows, columns = mass.shape
  chosen = mass.argmax(1)
  free_row, free_column = np.ones(rows, bool), np.ones(columns, bool)
  for place in np.argsort(-mass, axis=None, kind='stable'):
    row, column = divmod(int(place), columns)
    if free_row[row] and free_column[column]:
      chosen[row] = column
      free_row[row] = free_column[column] = False
      if not (free_row.any() and free_column.any()):
        break
  return chosen.astype(np.int32)
