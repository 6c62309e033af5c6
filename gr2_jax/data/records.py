"""Records of the data set as TFDS encodes them.

TFDS knows one record type a builder: a table leaves the fields it has no use
for empty.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gr2_jax.data import dataset as dataset_lib

_EMPTY = {
  'id': '',
  'title': '',
  'categories': (),
  'brand': '',
  'price': '',
  'description': '',
  'items': (),
  'timestamps': (),
  'labels': (),
  'bounds': (),
}


def of_item(item: dataset_lib.Item) -> dict[str, Any]:
  """Returns the record of an item."""
  record = dataclasses.asdict(item)
  record['id'] = record.pop('item_id')
  record['price'] = '' if item.price is None else repr(item.price)
  return {**_EMPTY, **record}


def of_user(
  user_id: str,
  items: Sequence[int],
  timestamps: Sequence[int],
  bounds: np.ndarray,
) -> dict[str, Any]:
  """Returns the record of a user.

  Args:
    user_id: the source's name.
    items: item indices, oldest first.
    timestamps: parallel to `items`.
    bounds: int64 [4], where the splits begin (`splits.bounds`).
  """
  return {
    **_EMPTY,
    'id': user_id,
    'items': np.asarray(items, np.int32),
    'timestamps': np.asarray(timestamps, np.int64),
    'bounds': bounds,
  }


def of_slate(
  user_id: str, timestamp: int, items: Sequence[int], labels: Sequence[int]
) -> dict[str, Any]:
  """Returns the record of a slate; see `dataset.Slate`."""
  return {
    **_EMPTY,
    'id': user_id,
    'items': np.array(items, np.int32),
    'timestamps': np.array([timestamp], np.int64),
    'labels': np.array(labels, np.int32),
  }
