"""Reads MovieLens-100K as RecBole ships it, or as GroupLens publishes it.

RecBole's folder holds `ml-100k.item` and `ml-100k.inter`, that of GroupLens
`u.item` (in Latin-1; a flag for each of 19 genres) and `u.data` (with tabs):

    1|Toy Story (1995)|01-Jan-1995|||0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0
    2|GoldenEye (1995)|01-Jan-1995|||0|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0|1|0|0
    3|Four Rooms (1995)|01-Jan-1995|||0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|1|0|0
    4|Get Shorty (1995)|01-Jan-1995|||0|1|0|0|0|1|0|0|1|0|0|0|0|0|0|0|0|0|0
    5|Copycat (1995)|01-Jan-1995|||0|0|0|0|0|0|1|0|1|0|0|0|0|0|0|0|1|0|0

    196\t3\t3\t881250949
    186\t2\t3\t891717742
    22\t1\t1\t878887116
    244\t5\t2\t880606923
    166\t4\t1\t886397596

Every rating counts as an interaction, whatever its stars, as is usual in
sequential recommendation. The title carries the year, "Toy Story (1995)", and
the categories are the genres.
"""

import pathlib
from collections.abc import Iterator

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import delimited, fields, raw, raw_files

# What the source calls an item without genres.
_NO_GENRE = 'unknown'
_GENRES = (
  *(_NO_GENRE, 'Action', 'Adventure', 'Animation', "Children's", 'Comedy'),
  *('Crime', 'Documentary', 'Drama', 'Fantasy', 'Film-Noir', 'Horror'),
  *('Musical', 'Mystery', 'Romance', 'Sci-Fi', 'Thriller', 'War', 'Western'),
)
_ITEM = ('movie id', 'title', 'release', 'video release', 'URL', *_GENRES)
_DATA = ('user id', 'item id', 'rating', 'timestamp')


def paths(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the two files of a folder.

  Args:
    folder: where they are.

  Returns:
    'items' and 'interactions' -> file.

  Raises:
    FileNotFoundError: a missing file.
  """
  names = 'ml-100k.item', 'ml-100k.inter'
  if any(raw_files.some(folder, name) for name in ('u.item', 'u.data')):
    names = 'u.item', 'u.data'
  return raw_files.two(folder, *names)


def read(folder: pathlib.Path) -> raw.Raw:
  """Reads the two files.

  Args:
    folder: holds `ml-100k.item` and `ml-100k.inter`, or `u.item` and `u.data`.

  Returns:
    1,682 items and 100,000 interactions, if the files are the original ones.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  items_file, interactions_file = paths(folder).values()
  if items_file.name.startswith('u.item'):
    found, ratings = _published(items_file), _ratings(interactions_file)
  else:
    found, ratings = _items(items_file), _atomic(interactions_file)
  items = raw.unique_items(found)
  interactions = [
    raw.interaction(cells, items, where, items_file.name)
    for where, cells in ratings
  ]
  return raw.Raw(tuple(items.values()), interactions)


def _atomic(path: pathlib.Path) -> Iterator[tuple[str, tuple[str, str, str]]]:
  names = ('user_id:token', 'item_id:token', 'timestamp:float')
  for where, row in delimited.rows(path, names, **delimited.TABS):
    yield where, tuple(row[name] for name in names)


def _ratings(path: pathlib.Path) -> Iterator[tuple[str, tuple[str, str, str]]]:
  for where, (user, item, _, time) in delimited.bare_rows(path, _DATA, '\t'):
    yield where, (user, item, time)


def _published(
  path: pathlib.Path,
) -> Iterator[tuple[str, dataset_lib.Item]]:
  for where, row in delimited.bare_rows(path, _ITEM, '|'):
    flags = row[-len(_GENRES) :]
    if not {*flags} <= {'0', '1'}:
      raise ValueError(
        f'{where}: the genres are {fields.shown(flags)}; give a 0 or a 1 for '
        f'each of {len(_GENRES)}.'
      )
    genres = zip(_GENRES, flags, strict=True)
    item = dataset_lib.Item(
      item_id=fields.identifier(row[0], _ITEM[0], where),
      title=fields.text(row[1], _ITEM[1], where),
      categories=tuple(
        genre for genre, flag in genres if flag == '1' and genre != _NO_GENRE
      ),
    )
    yield where, item


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
