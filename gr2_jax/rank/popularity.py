"""The popularity baseline: the items bought most often in training."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib


@dataclasses.dataclass(frozen=True)
class Popularity:
  """How often each item was bought in the retriever's training part.

  Attributes:
    counts: int64 [I].
  """

  counts: np.ndarray


def train(
  dataset: dataset_lib.Dataset, splits: splits_lib.Splits
) -> Popularity:
  """Counts the interactions before every held-out one (`splits.train_end`).

  Args:
    dataset: the interactions.
    splits: where the training part of each user ends.

  Returns:
    The counts.
  """
  counts = np.zeros(dataset.num_items, np.int64)
  for user in range(dataset.num_users):
    history = dataset.sequence(user)[: splits.train_end[user]]
    np.add.at(counts, history, 1)
  return Popularity(counts)


def scores(model: Popularity, items: np.ndarray) -> np.ndarray:
  """Scores items.

  Args:
    model: the counts.
    items: int [..], item indices.

  Returns:
    float32 [..], the number of purchases of each.
  """
  return model.counts[items].astype(np.float32)


def top_k(
  model: Popularity,
  histories: Sequence[np.ndarray],
  k: int,
  exclude_seen: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
  """Lists the k most popular items for each history.

  Equal counts go by item index, so that the list is reproducible.

  Args:
    model: the counts.
    histories: N arrays of item indices.
    k: length of each list.
    exclude_seen: leaves out the items of the history.

  Returns:
    items int32 [N, k], best first, and their counts float32 [N, k]; -1 and
    -inf where the catalogue has no more items.
  """
  order = np.argsort(-model.counts, kind='stable').astype(np.int32)
  items = np.full((len(histories), k), -1, np.int32)
  values = np.full((len(histories), k), -np.inf, np.float32)
  for row, history in enumerate(histories):
    chosen = order
    if exclude_seen:
      head = order[: k + len(history)]
      chosen = head[~np.isin(head, history)]
    chosen = chosen[:k]
    items[row, : len(chosen)] = chosen
    values[row, : len(chosen)] = scores(model, chosen)
  return items, values
