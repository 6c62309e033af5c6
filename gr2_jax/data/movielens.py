"""Reads MovieLens-100K in the form in which it ships with RecBole.

Every rating counts as an interaction, whatever its stars, as is usual in
sequential recommendation. The title carries the year, "Toy Story (1995)", and
the categories are the genres.
"""

import pathlib
from collections.abc import Iterator

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import delimited, fields, raw

# What the source calls an item whose genres nobody entered.
_NO_GENRE = 'unknown'


def paths(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the two files of a folder, 'items' and 'interactions'."""
  return {
    'items': folder / 'ml-100k.item',
    'interactions': folder / 'ml-100k.inter',
  }


def read(folder: pathlib.Path) -> raw.Raw:
  """Reads the two files.

  Args:
    folder: holds `ml-100k.item` and `ml-100k.inter`.

  Returns:
    1,682 items and 100,000 interactions, if the files are the original ones.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  items_file, interactions_file = paths(folder).values()
  items = raw.unique_items(_items(items_file))
  interactions = []
  for where, row in delimited.rows(
    interactions_file,
    ('user_id:token', 'item_id:token', 'timestamp:float'),
    **delimited.TABS,
  ):
    cells = row['user_id:token'], row['item_id:token'], row['timestamp:float']
    interactions.append(raw.interaction(cells, items, where, items_file.name))
  return raw.Raw(tuple(items.values()), interactions)


def _items(path: pathlib.Path) -> Iterator[tuple[str, dataset_lib.Item]]:
  columns = (
    'item_id:token',
    'movie_title:token_seq',
    'release_year:token',
    'class:token_seq',
  )
  for where, row in delimited.rows(path, columns, **delimited.TABS):
    item_id, title, year, genres = (row[name] for name in columns)
    title = fields.text(title, 'movie_title', where)
    genres = fields.text(genres, 'class', where)
    # Two records have no year; one of them has it in the title.
    if len(year) == 4 and year.isdecimal():
      title = f'{title} ({year})'
    yield (
      where,
      dataset_lib.Item(
        item_id=fields.identifier(item_id, 'item_id', where),
        title=title,
        categories=tuple(g for g in genres.split() if g != _NO_GENRE),
      ),
    )
