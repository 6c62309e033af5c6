"""Whether close semantic IDs mean close items."""

from collections.abc import Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib


def agreement(
  sids: np.ndarray, items: Sequence[dataset_lib.Item], levels: int
) -> float:
  """Returns how often items with one prefix share their leaf category.

  Args:
    sids: int [I, L].
    items: the catalogue; an item's leaf is the last of its categories.
    levels: length of the prefix; 0 gives the rate of chance.

  Returns:
    The mean, over items that have a leaf and a neighbour with one (another
    item with the same prefix), of the share of these neighbours with the same
    leaf; NaN where no item has such a neighbour. Our choice.
  """
  leaves = [item.categories[-1] if item.categories else '' for item in items]
  known = np.array([leaf != '' for leaf in leaves])
  _, leaf = np.unique(np.array(leaves)[known], return_inverse=True)
  prefix = np.asarray(sids)[known, :levels]
  _, group = np.unique(prefix, axis=0, return_inverse=True)
  group = group.reshape(-1)
  if not len(group):
    return float('nan')
  size = np.bincount(group)[group]
  _, both = np.unique(np.stack([group, leaf], 1), axis=0, return_inverse=True)
  same = np.bincount(both.reshape(-1))[both.reshape(-1)]
  crowded = size > 1
  if not crowded.any():
    return float('nan')
  return float(((same - 1)[crowded] / (size - 1)[crowded]).mean())
