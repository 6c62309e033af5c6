"""The catalogue, the users' sequences and the slates of one data set.

The data stage writes them as a TFDS data set in ArrayRecord
(`gr2_jax/data/builder.py`); every later stage calls `stored.load`.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Item:
  """One item of the catalogue.

  Attributes:
    item_id: the source's name of it, e.g. an ASIN.
    title: may be empty, where the source has none.
    categories: a path from root to leaf, or genres.
    brand: empty where unknown.
    price: in the source's currency; None where unknown.
    description: empty where unknown.
  """

  item_id: str
  title: str
  categories: tuple[str, ...] = ()
  brand: str = ''
  price: float | None = None
  description: str = ''


@dataclasses.dataclass(frozen=True)
class Slate:
  """A list that was served to a user, with its outcome.

  Attributes:
    user: index of the user.
    timestamp: when it was served.
    items: item indices in the order in which they were shown.
    labels: one grade an item: 0 is no engagement.
    columns: E rows of one number an item (`Dataset.slate_columns`).
  """

  user: int
  timestamp: int
  items: tuple[int, ...]
  labels: tuple[int, ...]
  columns: tuple[tuple[float, ...], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A catalogue of I items and the sequences of U users.

  Attributes:
    name: e.g. 'ml-100k'.
    items: I items; their place in the list is the item's index everywhere.
    user_ids: U names, sorted; the place in the list is the user's index.
    flat: int32 [interactions], item indices: user by user, oldest first.
    offsets: int64 [U + 1], user u owns `flat[offsets[u]:offsets[u + 1]]`.
    timestamps: int64 [interactions], parallel to `flat`.
    slates: served lists, where the source has them.
    counts: users, items and interactions, and what was dropped on the way or
      is remarkable (`clean.clean`).
    slate_columns: E names of what slates carry (`data.columns`).
    rows: int64 [I], the place of each item among all items of the source, as
      its file has them, before any was dropped; empty where unknown
      (Beam reads files in any order). None: the items stand in that order.
  """

  name: str
  items: list[Item]
  user_ids: list[str]
  flat: np.ndarray
  offsets: np.ndarray
  timestamps: np.ndarray
  slates: list[Slate] = dataclasses.field(default_factory=list)
  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  slate_columns: tuple[str, ...] = ()
  rows: np.ndarray | None = None

  @property
  def num_users(self) -> int:
    """Number of users U."""
    return len(self.user_ids)

  @property
  def num_items(self) -> int:
    """Number of items I."""
    return len(self.items)

  @property
  def num_rows(self) -> int:
    """Number of items of the source, before any was dropped."""
    return self.num_items + self.counts.get('below_core_items', 0)

  @functools.cached_property
  def index(self) -> dict[str, int]:
    """The index of each item by its id."""
    return {item.item_id: i for i, item in enumerate(self.items)}

  @property
  def lengths(self) -> np.ndarray:
    """Length of each user's sequence, int64 [U]."""
    return np.diff(self.offsets)

  def sequence(self, user: int) -> np.ndarray:
    """Returns a user's item indices, oldest first, int32 [length]."""
    return self.flat[self.offsets[user] : self.offsets[user + 1]]

  def times(self, user: int) -> np.ndarray:
    """Returns the timestamps of `sequence(user)`, int64 [length]."""
    return self.timestamps[self.offsets[user] : self.offsets[user + 1]]

  @functools.cached_property
  def sha256(self) -> str:
    """Hash of the content: items, users, sequences, times and slates."""
    digest = hashlib.sha256()
    for record in _text_records(self):
      digest.update(json.dumps(record).encode() + b'\n')
    for array, dtype in (
      (self.flat, '<i4'),
      (self.offsets, '<i8'),
      (self.timestamps, '<i8'),
    ):
      digest.update(np.ascontiguousarray(array, dtype).tobytes())
    return digest.hexdigest()


def _text_records(dataset: Dataset) -> Iterator:
  for item in dataset.items:
    yield list(vars(item).values())
  yield dataset.user_ids
  for slate in dataset.slates:
    # Without columns the hash is the one of data sets that cannot have any.
    record = [slate.user, slate.timestamp, slate.items, slate.labels]
    yield [*record, slate.columns] if dataset.slate_columns else record
  if dataset.slate_columns:
    yield dataset.slate_columns


def from_sequences(
  name: str,
  items: Sequence[Item],
  sequences: Mapping[str, Sequence[int]],
  times: Mapping[str, Sequence[int]] | None = None,
) -> Dataset:
  """Builds a data set of sequences that are in order already.

  Args:
    name: what to call it.
    items: the catalogue.
    sequences: user id -> item indices, oldest first; users are sorted by id.
    times: user id -> timestamps; by default the place in the sequence.

  Returns:
    The data set.

  Raises:
    ValueError: an item index outside of the catalogue, or as many timestamps
      as do not fit the sequence.
  """
  user_ids = sorted(sequences)
  flat, stamps = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
  for user in user_ids:
    part = np.asarray(sequences[user], np.int32)
    stamp = np.arange(len(part)) if times is None else np.asarray(times[user])
    if part.size and not 0 <= part.min() <= part.max() < len(items):
      raise ValueError(
        f'User {user!r} has an item index outside of 0..{len(items) - 1}: '
        f'{part.min()}..{part.max()}. Index the items of the catalogue.'
      )
    if len(part) != len(stamp):
      raise ValueError(
        f'User {user!r} has {len(part)} items and {len(stamp)} timestamps; '
        'give one timestamp an item.'
      )
    flat.append(part)
    stamps.append(stamp)
  return Dataset(
    name=name,
    items=list(items),
    user_ids=user_ids,
    flat=np.concatenate(flat),
    offsets=np.cumsum([0] + [len(part) for part in flat[1:]], dtype=np.int64),
    timestamps=np.concatenate(stamps),
    counts={
      'users': len(user_ids),
      'items': len(items),
      'interactions': sum(len(part) for part in flat),
    },
  )
