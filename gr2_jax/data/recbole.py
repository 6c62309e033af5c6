"""Reads RecBole's atomic files: `X.inter` and `X.item`.

Tabs stand between the columns, and the header names each with its type
(`token`, `token_seq`, `float`, `float_seq`); other columns are ignored.

X.inter has `user_id`, `item_id` and `timestamp`:

    user_id:token\titem_id:token\trating:float\ttimestamp:float
    196\t1\t3\t881250949
    196\t2\t3\t881250950
    186\t2\t3\t891717742
    22\t1\t1\t878887116

X.item has `item_id`, a title, and where known categories, brand, price and
description, by these or similar names (`_NAMES`):

    item_id:token\tmovie_title:token_seq\tclass:token_seq
    1\tToy Story\tAnimation Children's Comedy
    2\tGoldenEye\tAction Adventure Thriller
    3\tFour Rooms\tThriller
    4\tGet Shorty\tAction Comedy Drama

Categories of the type `token_seq` are read as a list where they are in quotes
(`'Beauty', 'Bath'`), with commas or `|` between where they have any, and else
with spaces between, as RecBole reads them. Entities of HTML, which the texts of
Amazon have, are resolved.
"""

import functools
import pathlib
from collections.abc import Iterator

from absl import logging

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import delimited, fields, raw, raw_files

_TYPES = ('token', 'token_seq', 'float', 'float_seq')
# What data sets call a field; the first that is there counts.
_NAMES = {
  'title': (
    *('title', 'movie_title', 'item_name', 'name', 'book_title'),
    *('product_title', 'item_title', 'game_title', 'track_name', 'app_name'),
  ),
  'categories': (
    *('categories', 'category', 'class', 'genres', 'genre', 'tags'),
    *('category_name', 'venue_category_name', 'item_category', 'category_id'),
  ),
  'brand': ('brand', 'store', 'publisher', 'author', 'artist'),
  'price': ('price',),
  'description': ('description',),
}


# Finds the two files of a folder.
paths = functools.partial(raw_files.two, items='*.item', interactions='*.inter')


def read(folder: pathlib.Path) -> raw.Raw:
  """Reads the two files.

  Args:
    folder: holds `X.inter` and `X.item`.

  Returns:
    Their content, checked.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  files = paths(folder)
  items = raw.unique_items(_items(files['items']))
  names, file = ('user_id', 'item_id', 'timestamp'), files['items'].name
  interactions = [
    raw.interaction(tuple(row[name] for name in names), items, where, file)
    for where, row, _ in _rows(files['interactions'], names)
  ]
  return raw.Raw(tuple(items.values()), interactions)


def _items(path: pathlib.Path) -> Iterator[tuple[str, dataset_lib.Item]]:
  column = None
  for where, row, types in _rows(path, ('item_id',)):
    if column is None:
      column = _columns(path, list(row))
    cell = {field: row[name] for field, name in column.items()}
    categories = cell.get('categories', '')
    if types.get(column.get('categories')) == 'token_seq':
      categories = _sequence(categories)
    categories = fields.strings(categories, 'categories', where)
    texts = {
      'title': fields.text(cell['title'], column['title'], where),
      'brand': fields.text(cell.get('brand'), 'brand', where),
      'description': fields.prose(
        cell.get('description'), 'description', where
      ),
    }
    yield (
      where,
      dataset_lib.Item(
        item_id=fields.identifier(row['item_id'], 'item_id', where),
        categories=tuple(map(fields.unescaped, categories)),
        price=fields.price(cell.get('price'), where),
        **{name: fields.unescaped(text) for name, text in texts.items()},
      ),
    )


def _columns(path: pathlib.Path, names: list[str]) -> dict[str, str]:
  """Returns the column of each field that the items have."""
  found = {}
  for field, known in _NAMES.items():
    name = next((name for name in known if name in names), None)
    if name is not None:
      found[field] = name
  if 'title' not in found:
    raise ValueError(
      f'{path}:1: no title among the columns {names}; rename the one that '
      'holds it to title:token_seq.'
    )
  if 'categories' not in found:
    logging.warning(
      '%s:1: no categories among the columns %s; if one holds them, rename it '
      'to categories:token_seq.',
      *(path, names),
    )
  return found


def _sequence(value: str) -> str | list[str]:
  """Splits a `token_seq`; what is a list or has `|` is left as it is."""
  value = value.strip()
  if value[:1] in ("'", '"') and value[-1:] == value[:1]:
    return f'[{value}]'
  if value.startswith('[') or '|' in value:
    return value
  return value.split(',' if ',' in value else None)


def _rows(
  path: pathlib.Path, required: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
  """Yields (file and line, cells, types), both by names without types."""
  types = None
  for where, row in delimited.rows(path, (), **delimited.TABS):
    if types is None:
      pairs = [name.rpartition(':') for name in row]
      wrong = [
        name
        for name, _, kind in pairs
        if not name or ':' in name or kind not in _TYPES
      ]
      if wrong:
        raise ValueError(
          f'{path}:1: the columns {list(row)} have not all a name and one of '
          f'the types {_TYPES}; write a header such as user_id:token, with '
          'tabs between the columns.'
        )
      raw_files.require([name for name, _, _ in pairs], required, f'{path}:1')
      types = {name: kind for name, _, kind in pairs}
    yield where, dict(zip(types, row.values(), strict=True)), types
  if types is None:
    raise ValueError(f'{path}: no rows; give the file at least one.')
