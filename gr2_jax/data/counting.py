"""Counts of a data set, from which sizes and costs of a run are derived."""

import dataclasses

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits

# A user must fill a history and each of the three splits; below these numbers
# nothing can be learned or told apart. Our choice.
SHORTEST = 4
FEWEST_USERS = 30
FEWEST_ITEMS = 30


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
  """A data set after it was filtered.

  Attributes:
    items: I.
    lengths: int [U], interactions of each user.
  """

  items: int
  lengths: np.ndarray

  @property
  def users(self) -> int:
    """U."""
    return len(self.lengths)

  @property
  def interactions(self) -> int:
    """Number of interactions."""
    return int(self.lengths.sum())

  @property
  def median(self) -> int:
    """Interactions of the median user."""
    return int(np.median(self.lengths))

  def positions(self, cfg: splits.SplitConfig) -> dict[str, int]:
    """Returns how many positions a split holds out: 'train' and so on."""
    held_out = np.diff(splits.bounds(self.lengths, cfg), axis=1).sum(axis=0)
    return dict(zip(splits.NAMES, held_out.tolist(), strict=True))


def count(dataset: dataset_lib.Dataset) -> Counts:
  """Counts a data set.

  Args:
    dataset: after it was filtered.

  Returns:
    The counts.

  Raises:
    ValueError: too few items, or too few users with enough interactions.
  """
  if dataset.num_items < FEWEST_ITEMS:
    raise ValueError(
      f'The data set {dataset.name!r} has {dataset.num_items} items after it '
      f'was filtered, below {FEWEST_ITEMS}: lists of ten candidates need more. '
      'Lower data.core, or bring more items.'
    )
  enough = int((dataset.lengths >= SHORTEST).sum())
  if enough < FEWEST_USERS:
    raise ValueError(
      f'Of {dataset.num_users} users of {dataset.name!r} {enough} have '
      f'{SHORTEST} or more interactions, below {FEWEST_USERS}: a user needs '
      'one each to train, to validate and to test, and one before these. Bring '
      'longer histories or more users; a lower data.core keeps more of them.'
    )
  return Counts(dataset.num_items, dataset.lengths)
