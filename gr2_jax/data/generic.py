"""Reads a data set of your own: items, interactions, optionally slates.

A folder holds `items` and `interactions`, and perhaps `slates`, each as
`.jsonl`, `.csv` (both also `.gz`) or `.parquet` (also a folder of parts, as
Spark writes it). Other columns are ignored.

items.jsonl: `item_id` and `title`, `categories` from root to leaf, and where
known `brand`, `price`, `description` (a text, or a list of its parts). In CSV
lists are written with `|` between the parts, or as JSON or Python write them,
`['Beauty', 'Bath']`:

    {"item_id": "A1", "title": "Rose soap", "categories": ["Beauty", "Bath"]}
    {"item_id": "A2", "title": "Mint balm", "categories": ["Beauty", "Lips"]}
    {"item_id": "A3", "title": "Nail file", "categories": ["Tools"], "price": 2}
    {"item_id": "A4", "title": "Red paint", "categories": ["Beauty", "Nails"]}
    {"item_id": "A5", "title": "Hair clip", "categories": [], "brand": "Clipp"}

interactions.csv: `timestamp` is a whole number in any unit (seconds, or a
place in the sequence), or a date of ISO 8601; rows may stand in any order, and
rows of the same time keep the order of the file:

    user_id,item_id,timestamp
    ann,A1,1700000000
    ann,A4,1700000060
    bob,A2,1700000030
    bob,A3,1700000090
    bob,A5,1700000200

slates.jsonl: a list that was served, with a grade for each item (0: nothing, 1,
2, ..: more and more), for `candidates.source = 'slates'` (`slates.py`):

    {"user_id": "ann", "timestamp": 9, "item_ids": ["A2"], "labels": [1]}

A slate may bring columns of its own, numbers for each item that re-ranking
should weigh, as `features`: `{"ctr": [0.12, 0.3], "age": [3, 40]}` (in CSV as
JSON text). All slates then have those of the first (`columns.py`).
"""

import pathlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from gr2_jax.data import columns as columns_lib
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import fields, raw, tables

_ITEM = ('item_id', 'title', 'categories')
_MORE = ('brand', 'price', 'description')
_SLATE = ('user_id', 'timestamp', 'item_ids', 'labels')
_ENDINGS = ('.jsonl', '.csv', '.parquet', '.jsonl.gz', '.csv.gz')


def paths(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the files of a folder.

  Args:
    folder: where they are.

  Returns:
    'items', 'interactions' and perhaps 'slates' -> file.

  Raises:
    FileNotFoundError: no such folder, or no file of items or interactions.
    ValueError: two files for one table.
  """
  if not folder.is_dir():
    raise FileNotFoundError(
      f'{folder}: no such folder; set config.data.dir to the one with the data.'
    )
  found = {}
  for name in ('items', 'interactions', 'slates'):
    candidates = [
      folder / f'{name}{ending}'
      for ending in _ENDINGS
      if (folder / f'{name}{ending}').exists()
    ]
    if len(candidates) > 1:
      raise ValueError(
        f'{folder}: {[path.name for path in candidates]} both hold {name}; '
        'leave one of them.'
      )
    if candidates:
      found[name] = candidates[0]
    elif name != 'slates':
      raise FileNotFoundError(
        f'{folder}: no file of {name}; add one of '
        f'{[name + ending for ending in _ENDINGS]}, or set config.data.kind to '
        'what the folder holds.'
      )
  return found


def parts(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Finds tables that may be cut into parts, for `beam.py`.

  Args:
    folder: where they are: `items.csv`, or `items-0001.csv` and so on.

  Returns:
    'items', 'interactions' and 'slates' -> files, by name; slates may be none.

  Raises:
    FileNotFoundError: no file of items or interactions.
  """
  found = {}
  for name in ('items', 'interactions', 'slates'):
    found[name] = sorted(
      path
      for pattern in (f'{name}.*', f'{name}-*')
      for path in folder.glob(pattern)
      if path.name.endswith(_ENDINGS)
    )
    if not found[name] and name != 'slates':
      raise FileNotFoundError(
        f'{folder}: no file of {name}; add {name}.csv, or parts as '
        f'{name}-0001.csv (or one of {_ENDINGS}).'
      )
  return found


def read(folder: pathlib.Path) -> raw.Raw:
  """Reads the files of a folder.

  Args:
    folder: where they are.

  Returns:
    Their content, checked.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  files = paths(folder)
  items = raw.unique_items(each_item(files['items']))
  file = files['items'].name
  interactions = list(each_interaction(files['interactions'], items, file))
  slates, columns = (), ()
  if 'slates' in files:
    columns = slate_columns(files['slates'])
    slates = tuple(each_slate(files['slates'], items, file, columns))
  return raw.Raw(tuple(items.values()), interactions, slates, columns)


def read_items(path: pathlib.Path) -> tuple[dataset_lib.Item, ...]:
  """Reads one file of items.

  Args:
    path: CSV, JSONL or Parquet with the columns of `items.*`.

  Returns:
    The items, in the order of the file.

  Raises:
    ValueError: bad input, with file, line and remedy.
  """
  return tuple(raw.unique_items(each_item(path)).values())


def each_item(path: pathlib.Path) -> Iterator[tuple[str, dataset_lib.Item]]:
  """Yields (file and line, item) of one file; see `read`."""
  for where, row in tables.rows(path, _ITEM, _MORE):
    yield where, item(row, where)


def item(row: Any, where: str) -> dataset_lib.Item:
  """Returns the item that an object of `items.jsonl` describes.

  Args:
    row: the object.
    where: what to call it in errors.

  Raises:
    ValueError: no object, or a field that is missing or wrong.
  """
  if not isinstance(row, Mapping) or not row.keys() >= set(_ITEM):
    raise ValueError(
      f'{where}: {fields.shown(row)} is no item: give an object with '
      f'{", ".join(_ITEM)}.'
    )
  return dataset_lib.Item(
    item_id=fields.identifier(row['item_id'], 'item_id', where),
    title=fields.text(row['title'], 'title', where),
    categories=fields.strings(row['categories'], 'categories', where),
    brand=fields.text(row.get('brand'), 'brand', where),
    price=fields.price(row.get('price'), where),
    description=fields.prose(row.get('description'), 'description', where),
  )


def each_interaction(
  path: pathlib.Path, items: Container[str], file: str
) -> Iterator[raw.Interaction]:
  """Yields the rows of one file; see `read`.

  Args:
    path: the file.
    items: ids of the items that there are.
    file: what holds the items, for messages.
  """
  for where, row in tables.rows(path, ('user_id', 'item_id', 'timestamp')):
    cells = row['user_id'], row['item_id'], row['timestamp']
    yield raw.interaction(cells, items, where, file)


def slate_columns(path: pathlib.Path) -> tuple[str, ...]:
  """Returns the names of the columns that the first slate carries."""
  where, row = next(tables.rows(path, _SLATE, (columns_lib.KEY,)))
  return columns_lib.names(row.get(columns_lib.KEY), where)


def each_slate(
  path: pathlib.Path,
  items: Container[str],
  file: str,
  columns: Sequence[str],
) -> Iterator[raw.RawSlate]:
  """Yields the slates of one file.

  Args:
    path: the file.
    items: ids of the items that there are.
    file: what holds the items, for messages.
    columns: what all slates carry, those of the first one.
  """
  for where, row in tables.rows(path, _SLATE, (columns_lib.KEY,)):
    item_ids = fields.identifiers(row['item_ids'], 'item_ids', where)
    labels = fields.integers(row['labels'], 'labels', where)
    for item_id in item_ids:
      raw.known_item(item_id, items, where, file)
    if not item_ids or len(set(item_ids)) < len(item_ids):
      raise ValueError(
        f'{where}: the slate {fields.shown(list(item_ids))} is empty or names '
        'an item twice; give each served item once.'
      )
    if len(labels) != len(item_ids):
      raise ValueError(
        f'{where}: {len(labels)} labels for {len(item_ids)} items; give one '
        'label an item.'
      )
    yield raw.RawSlate(
      fields.identifier(row['user_id'], 'user_id', where),
      fields.timestamp(row['timestamp'], where),
      item_ids,
      labels,
      columns_lib.rows(
        row.get(columns_lib.KEY),
        columns,
        len(item_ids),
        where,
        'the first slate',
      ),
    )
