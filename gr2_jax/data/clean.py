"""From raw rows to a data set: duplicates, order, k-core, stable indices."""

from collections.abc import Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import doubts
from gr2_jax.data import raw as raw_lib


def clean(name: str, raw: raw_lib.Raw, core: int) -> dataset_lib.Dataset:
  """Filters, orders and indexes the rows of a source.

  Indices depend on the ids alone: users and items are sorted by id. A sequence
  is sorted by time; rows of the same time keep the order of the file. Rows that
  repeat user, item and time are dropped; a later return to an item is kept.

  Args:
    name: what to call the data set.
    raw: the rows.
    core: keep users and items with at least that many interactions each
      (k-core, [P]: 5); 0 keeps everything, items without interactions too.

  Returns:
    The data set. Its `counts` hold the sizes; what was dropped: `duplicates`,
    `below_core_*` and `dropped_slates`, of users without interactions or with a
    dropped item; and what was kept: `out_of_order`, rows older than the user's
    row before them in the file, `repeats` of an item, `untitled` items.

  Raises:
    ValueError: nothing is left, or rows can hardly be meant (`doubts.py`).
  """
  order = sorted(range(len(raw.items)), key=lambda row: raw.items[row].item_id)
  items = [raw.items[row] for row in order]
  rows, user_ids = _indexed(raw.interactions, items)
  _check(name, raw, items, user_ids)
  unique = _without_duplicates(rows)
  users_kept, items_kept = _core(unique, core, len(user_ids), len(items))
  kept = unique[users_kept[unique[:, 0]] & items_kept[unique[:, 1]]]
  if not len(kept):
    raise ValueError(
      f'Data set {name!r}: of {len(rows)} interactions none is left with '
      f'core={core}; lower config.data.core or bring more data.'
    )
  user_ids = [u for u, keep in zip(user_ids, users_kept, strict=True) if keep]
  items = [i for i, keep in zip(items, items_kept, strict=True) if keep]
  slates = _slates(raw.slates, user_ids, items)
  counts = {
    'users': len(user_ids),
    'items': len(items),
    'interactions': len(kept),
    'out_of_order': _out_of_order(rows),
    'duplicates': len(rows) - len(unique),
    'below_core_users': len(users_kept) - len(user_ids),
    'below_core_items': len(items_kept) - len(items),
    'below_core_interactions': len(unique) - len(kept),
    'repeats': len(kept) - len(np.unique(kept[:, :2], axis=0)),
    'dropped_slates': len(raw.slates) - len(slates),
    'untitled': sum(not item.title for item in items),
  }
  return dataset_lib.Dataset(
    name=name,
    items=items,
    user_ids=user_ids,
    slates=slates,
    slate_columns=raw.slate_columns,
    counts=counts,
    rows=np.array(order, np.int64)[items_kept],
    **_sequences(kept, users_kept, items_kept),
  )


def _check(
  name: str,
  raw: raw_lib.Raw,
  items: Sequence[dataset_lib.Item],
  user_ids: Sequence[str],
) -> None:
  """Refuses rows that can hardly be meant as they are, and warns of others."""
  rows = (*raw.interactions, *raw.slates)
  times = np.array([row.timestamp for row in rows], np.int64)
  doubts.check_units(doubts.units(times), name)
  doubts.warn_of_small(times, name)
  doubts.check_ids(user_ids, 'user_id', name)
  doubts.check_ids([item.item_id for item in items], 'item_id', name)
  doubts.warn_of_texts(items, name)


def _indexed(
  interactions: Sequence[raw_lib.Interaction],
  items: Sequence[dataset_lib.Item],
) -> tuple[np.ndarray, list[str]]:
  """Returns int64 [n, 3] (user, item index, timestamp), and the users."""
  user_ids = sorted({row.user_id for row in interactions})
  user_of = {user_id: u for u, user_id in enumerate(user_ids)}
  item_of = {item.item_id: i for i, item in enumerate(items)}
  rows = [
    (user_of[row.user_id], item_of[row.item_id], row.timestamp)
    for row in interactions
  ]
  return np.array(rows, np.int64).reshape(-1, 3), user_ids


def _out_of_order(rows: np.ndarray) -> int:
  """Counts rows that are older than the user's row before them in the file."""
  rows = rows[np.argsort(rows[:, 0], kind='stable')]
  same_user = rows[1:, 0] == rows[:-1, 0]
  return int((same_user & (rows[1:, 2] < rows[:-1, 2])).sum())


def _without_duplicates(rows: np.ndarray) -> np.ndarray:
  """Keeps the first of equal rows, in the order of the file."""
  _, first = np.unique(rows, axis=0, return_index=True)
  return rows[np.sort(first)]


def _core(
  rows: np.ndarray, core: int, num_users: int, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the largest set in which users and items have `core` rows each.

  Args:
    rows: int64 [n, 3], user and item in the first two columns.
    core: the least number of rows.
    num_users: U.
    num_items: I.

  Returns:
    (bool [U], bool [I]): who is kept.
  """
  users = np.ones(num_users, bool)
  items = np.ones(num_items, bool)
  while core:
    inside = rows[users[rows[:, 0]] & items[rows[:, 1]]]
    enough_users = np.bincount(inside[:, 0], minlength=num_users) >= core
    enough_items = np.bincount(inside[:, 1], minlength=num_items) >= core
    if (enough_users == users).all() and (enough_items == items).all():
      break
    users, items = enough_users, enough_items
  return users, items


def _sequences(
  rows: np.ndarray, users_kept: np.ndarray, items_kept: np.ndarray
) -> dict[str, np.ndarray]:
  """Orders rows by user and time, and gives the kept ones new indices."""
  rows = rows[np.lexsort((rows[:, 2], rows[:, 0]))]
  lengths = np.bincount(rows[:, 0], minlength=len(users_kept))[users_kept]
  return {
    'flat': (np.cumsum(items_kept) - 1)[rows[:, 1]].astype(np.int32),
    'offsets': np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    'timestamps': np.ascontiguousarray(rows[:, 2]),
  }


def _slates(
  slates: Sequence[raw_lib.RawSlate],
  user_ids: Sequence[str],
  items: Sequence[dataset_lib.Item],
) -> list[dataset_lib.Slate]:
  """Indexes the slates whose user and items are kept, by user and time."""
  user_of = {user_id: u for u, user_id in enumerate(user_ids)}
  item_of = {item.item_id: i for i, item in enumerate(items)}
  found = [
    dataset_lib.Slate(
      user_of[slate.user_id],
      slate.timestamp,
      tuple(item_of[item_id] for item_id in slate.item_ids),
      slate.labels,
      slate.columns,
    )
    for slate in slates
    if slate.user_id in user_of and item_of.keys() >= set(slate.item_ids)
  ]
  return sorted(found, key=lambda slate: (slate.user, slate.timestamp))
