"""Records of the data set as TFDS encodes them.

TFDS knows one record type a builder: a table leaves the fields it has no use
for empty.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr2_jax.data import dataset as dataset_lib

# Feature by name, of one record as it is read.
Record = Mapping[str, Any]

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
  'columns': (),
  'bounds': (),
  'row': (),
}


def of_item(item: dataset_lib.Item, row: int | None = None) -> dict[str, Any]:
  """Returns the record of an item.

  Args:
    item: the item.
    row: its place in the source's file (`dataset.Dataset.rows`), if known.
  """
  record = dataclasses.asdict(item)
  record['id'] = record.pop('item_id')
  record['price'] = '' if item.price is None else repr(item.price)
  record['row'] = np.array([] if row is None else [row], np.int64)
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
  user_id: str,
  timestamp: int,
  items: Sequence[int],
  labels: Sequence[int],
  columns: Sequence[Sequence[float]],
) -> dict[str, Any]:
  """Returns the record of a slate; see `dataset.Slate`."""
  return {
    **_EMPTY,
    'id': user_id,
    'items': np.array(items, np.int32),
    'timestamps': np.array([timestamp], np.int64),
    'labels': np.array(labels, np.int32),
    # One after the other.
    'columns': np.array(columns, np.float32).ravel(),
  }


def texts(record: Record, field: str) -> tuple[str, ...]:
  """Returns the texts of a field."""
  return tuple(v.decode() for v in record[field].bytes_list.value)


def integers(record: Record, field: str) -> Sequence[int]:
  """Returns the whole numbers of a field."""
  return record[field].int64_list.value


def to_item(record: Record) -> dataset_lib.Item:
  """Returns the item of a record."""
  item_id, title, brand, price, description = (
    texts(record, field)[0]
    for field in ('id', 'title', 'brand', 'price', 'description')
  )
  return dataset_lib.Item(
    item_id=item_id,
    title=title,
    categories=texts(record, 'categories'),
    brand=brand,
    price=float(price) if price else None,
    description=description,
  )


def to_slate(record: Record, user_of: Mapping[str, int]) -> dataset_lib.Slate:
  """Returns the slate of a record; `user_of` has the users' indices."""
  items = tuple(integers(record, 'items'))
  # Of data sets that were written before there were columns: none.
  numbers = tuple(record['columns'].float_list.value)
  return dataset_lib.Slate(
    user=user_of[texts(record, 'id')[0]],
    timestamp=integers(record, 'timestamps')[0],
    items=items,
    labels=tuple(integers(record, 'labels')),
    columns=tuple(
      numbers[start : start + len(items)]
      for start in range(0, len(numbers), len(items))
    ),
  )
