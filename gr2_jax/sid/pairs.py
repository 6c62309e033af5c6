"""Items that were engaged with one after the other: positives of InfoNCE.

Only what a retriever may train on is read (`splits.train_end`): a pair from a
held-out position would tell the tokenizer the answer.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse


def partners(
  sequences: Sequence[np.ndarray], num_items: int, window: int, most: int = 16
) -> np.ndarray:
  """Lists the items that each item was most often engaged with.

  Args:
    sequences: item indices by user, oldest first; only what may be trained on.
    num_items: I.
    window: how far apart in a sequence two items may stand.
    most: M, partners kept an item; the most frequent, ties to lower indices.

  Returns:
    int32 [I, M], -1 where an item has fewer partners. Our choice; GR2 says
    co-engaged.
  """
  rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
  for sequence in sequences:
    for distance in range(1, window + 1):
      rows.append(sequence[:-distance])
      columns.append(sequence[distance:])
  row, column = np.concatenate(rows), np.concatenate(columns)
  apart = row != column
  row, column = row[apart], column[apart]
  ones = np.ones(len(row), np.int32)
  counts = scipy.sparse.csr_matrix(
    (ones, (row, column)), shape=(num_items, num_items)
  )
  counts = (counts + counts.T).tocsr()
  counts.sort_indices()
  found = np.full((num_items, most), -1, np.int32)
  for item in range(num_items):
    begin, end = counts.indptr[item : item + 2]
    order = np.argsort(-counts.data[begin:end], kind='stable')[:most]
    found[item, : len(order)] = counts.indices[begin:end][order]
  return found
