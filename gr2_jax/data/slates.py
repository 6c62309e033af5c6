"""Served slates as candidate lists with grades, without leakage.

The list of a slate is its first K items as they were shown, with their labels
as grades; its history is what the user did strictly before it was served. What
has the slate's own timestamp may be its outcome, and is not shown.

The labels of a slate tell what the user did next. With p interactions before
it, these are the positions from p on, up to where the last of its positives is
next met:

    0 ........ train_end | train | valid | test | n

They must lie in one part (`splits.bounds`), or the slate is dropped. Then no
model that reads `sequence[:train_end]` knows the outcome of a list, and no
training list tells of a held-out interaction. What is served after the last
interaction belongs to test. All this is our choice: GR2-T does not say how it
splits.
"""

import dataclasses

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib

# Gains are 2^g - 1: more is no grade but a count that was not binned.
MAX_GRADE = 20

REASONS = ('one_sided', 'seen', 'straddling')


@dataclasses.dataclass(frozen=True, eq=False)
class SlateLists:
  """The candidate lists of one split, in the order of the slates.

  Attributes:
    user: int32 [N].
    position: int32 [N], interactions of the user before the slate: the history
      is `sequence(user)[:position]`, never empty.
    candidates: int32 [N, K], item indices as shown, -1 at the end of shorter
      lists.
    grades: int32 [N, K], 0 for no engagement and for padding; each list has
      both a positive and a negative.
    columns: float32 [N, K, E], what the slates carry
      (`dataset.slate_columns`), as it is; 0 in padding.
  """

  user: np.ndarray
  position: np.ndarray
  candidates: np.ndarray
  grades: np.ndarray
  columns: np.ndarray

  @property
  def target(self) -> np.ndarray:
    """Place of the best graded item, the first shown of equals, int32 [N]."""
    return self.grades.argmax(axis=1).astype(np.int32)


def make(
  dataset: dataset_lib.Dataset, cfg: splits_lib.SplitConfig, k: int
) -> tuple[dict[str, SlateLists], dict[str, int]]:
  """Makes lists of the slates of a data set and assigns them to splits.

  Args:
    dataset: sequences and slates.
    cfg: what is held out.
    k: K; of a longer slate what was shown behind the first K is left out.

  Returns:
    ('train', 'valid' and 'test' -> lists; counts). The counts: `slates`, `cut`
    to K items; and what was dropped, each slate under the first that holds:
    `one_sided` (its K items lack a positive or a negative), `seen` (what comes
    next is trained on before RL), `straddling` (its outcome reaches into the
    next part).

  Raises:
    ValueError: no slates, or a label above 20.
  """
  if not dataset.slates:
    raise ValueError(
      f'Data set {dataset.name!r} has no slates: add a file slates.* '
      '(gr2_jax/data/generic.py), or take another candidates.source.'
    )
  edges = splits_lib.bounds(dataset.lengths, cfg)
  found = {name: [] for name in (*splits_lib.NAMES, *REASONS)}
  for slate in dataset.slates:
    _check_labels(dataset, slate)
    part, position = _place(dataset, edges[slate.user], slate, k)
    found[part].append((slate, position))
  counts = {
    'slates': len(dataset.slates),
    'cut': sum(len(slate.items) > k for slate in dataset.slates),
    **{reason: len(found[reason]) for reason in REASONS},
  }
  size = len(dataset.slate_columns)
  lists = {name: _stack(found[name], k, size) for name in splits_lib.NAMES}
  return lists, counts


def _check_labels(
  dataset: dataset_lib.Dataset, slate: dataset_lib.Slate
) -> None:
  if max(slate.labels) > MAX_GRADE:
    raise ValueError(
      f'A slate of user {dataset.user_ids[slate.user]!r} at '
      f'{slate.timestamp} has the label {max(slate.labels)}, but labels are '
      f'grades from 0 to {MAX_GRADE} (their gain is 2^g - 1): bin them.'
    )


def _place(
  dataset: dataset_lib.Dataset,
  edges: np.ndarray,
  slate: dataset_lib.Slate,
  k: int,
) -> tuple[str, int]:
  """Returns the split of a slate, or why it has none, and its position."""
  times = dataset.times(slate.user)
  position = int(np.searchsorted(times, slate.timestamp, side='left'))
  labels = np.array(slate.labels[:k])
  if not (labels > 0).any() or not (labels == 0).any():
    return 'one_sided', position
  if position < edges[0]:
    return 'seen', position
  # The last part has no end: what was served after it all is tested, too.
  part = int(np.searchsorted(edges[1:-1], position, side='right'))
  later = dataset.sequence(slate.user)[position:]
  positives = np.array(slate.items[:k])[labels > 0]
  items, first = np.unique(later, return_index=True)
  met = first[np.isin(items, positives)]
  last = position + int(met.max(initial=0))
  if part < len(edges) - 2 and last >= edges[part + 1]:
    return 'straddling', position
  return splits_lib.NAMES[part], position


def _stack(
  rows: list[tuple[dataset_lib.Slate, int]], k: int, size: int
) -> SlateLists:
  """Makes arrays of slates with their positions; `size` is E."""
  candidates = np.full((len(rows), k), -1, np.int32)
  grades = np.zeros((len(rows), k), np.int32)
  columns = np.zeros((len(rows), k, size), np.float32)
  for row, (slate, _) in enumerate(rows):
    shown = len(slate.items[:k])
    candidates[row, :shown] = slate.items[:k]
    grades[row, :shown] = slate.labels[:k]
    for column, values in enumerate(slate.columns):
      columns[row, :shown, column] = values[:k]
  return SlateLists(
    np.array([slate.user for slate, _ in rows], np.int32),
    np.array([position for _, position in rows], np.int32),
    candidates,
    grades,
    columns,
  )
