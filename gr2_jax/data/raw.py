"""What a reader makes of raw files, before anything is filtered or ordered."""

import dataclasses
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import fields


class Interaction(NamedTuple):
  """One row of the interactions: who, what and when, in the source's words."""

  user_id: str
  item_id: str
  timestamp: int


class RawSlate(NamedTuple):
  """One served list; see `dataset.Slate`, with names instead of indices."""

  user_id: str
  timestamp: int
  item_ids: tuple[str, ...]
  labels: tuple[int, ...]
  columns: tuple[tuple[float, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Raw:
  """A data set as it stands in its files.

  Attributes:
    items: one record an item, ids unique.
    interactions: rows in the order of the file, all of known items.
    slates: served lists, all of known items.
    slate_columns: names of the columns that each slate brings along.
  """

  items: Sequence[dataset_lib.Item]
  interactions: Sequence[Interaction]
  slates: Sequence[RawSlate] = ()
  slate_columns: tuple[str, ...] = ()


def unique_items(
  found: Iterable[tuple[str, dataset_lib.Item]],
) -> dict[str, dataset_lib.Item]:
  """Collects items by id.

  Args:
    found: (file and line, item).

  Returns:
    Item by id.

  Raises:
    ValueError: an id that stands twice, with both places.
  """
  items: dict[str, dataset_lib.Item] = {}
  places: dict[str, str] = {}
  for where, item in found:
    if item.item_id in items:
      raise ValueError(
        f'{where}: the item {item.item_id!r} stands at {places[item.item_id]} '
        'already; keep one record an item.'
      )
    items[item.item_id] = item
    places[item.item_id] = where
  return items


def known_item(
  item_id: str, items: Container[str], where: str, file: str
) -> str:
  """Returns the id, or raises if no item has it.

  Args:
    item_id: the id that a row names.
    items: the items there are.
    where: file and line of the row.
    file: name of the file with the items.

  Returns:
    `item_id`.

  Raises:
    ValueError: no item has it.
  """
  if item_id not in items:
    raise ValueError(
      f'{where}: the item {item_id!r} has no record in {file}; add one there, '
      'or remove the row.'
    )
  return item_id


def interaction(
  cells: tuple[Any, Any, Any],
  items: Container[str],
  where: str,
  file: str,
  names: tuple[str, str] = ('user_id', 'item_id'),
) -> Interaction:
  """Reads a row of interactions.

  Args:
    cells: user, item and time, as they stand in the row.
    items: the items there are.
    where: file and line of the row.
    file: name of the file with the items.
    names: of the columns of user and item, for messages.

  Returns:
    The interaction.

  Raises:
    ValueError: no id, an item that no record describes, or no time.
  """
  user, item, time = cells
  item = fields.identifier(item, names[1], where)
  return Interaction(
    fields.identifier(user, names[0], where),
    known_item(item, items, where, file),
    fields.timestamp(time, where),
  )
