"""Reads MovieLens-1M and 10M as GroupLens publishes them.

A folder holds `movies.dat` and `ratings.dat`, in Latin-1 (UTF-8 is read, too),
with `::` between the fields.

movies.dat, the categories are the genres:

    1::Toy Story (1995)::Animation|Children's|Comedy
    2::Jumanji (1995)::Adventure|Children's|Fantasy
    3::Grumpier Old Men (1995)::Comedy|Romance
    4::Waiting to Exhale (1995)::Comedy|Drama
    5::Father of the Bride Part II (1995)::Comedy

ratings.dat, user, movie, stars and seconds since 1970; every rating counts as
an interaction, whatever its stars, as is usual in sequential recommendation:

    1::1::5::978300760
    1::3::3::978302109
    2::4::3::978301968
    2::1::4::978300275
    3::5::5::978824291
"""

import functools
import pathlib
from collections.abc import Iterator

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import delimited, fields, raw, raw_files

# What GroupLens writes, in CSV, too, where no genre was entered.
_NO_GENRES = '(no genres listed)'
_MOVIE = ('MovieID', 'Title', 'Genres')
_RATING = ('UserID', 'MovieID', 'Rating', 'Timestamp')


# Finds the two files of a folder.
paths = functools.partial(
  raw_files.two, items='movies.dat', interactions='ratings.dat'
)


def read(folder: pathlib.Path) -> raw.Raw:
  """Reads the two files.

  Args:
    folder: holds `movies.dat` and `ratings.dat`.

  Returns:
    3,883 items and 1,000,209 interactions, if the files are those of 1M.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  files = paths(folder)
  items = raw.unique_items(_items(files['items']))
  file, names = files['items'].name, ('UserID', 'MovieID')
  interactions = [
    raw.interaction((user, movie, time), items, where, file, names)
    for where, (user, movie, _, time) in delimited.bare_rows(
      files['interactions'], _RATING, '::'
    )
  ]
  return raw.Raw(tuple(items.values()), interactions)


def _items(path: pathlib.Path) -> Iterator[tuple[str, dataset_lib.Item]]:
  for where, (movie, title, genres) in delimited.bare_rows(path, _MOVIE, '::'):
    item = dataset_lib.Item(
      item_id=fields.identifier(movie, 'MovieID', where),
      title=fields.text(title, 'Title', where),
      categories=genres_of(genres, 'Genres', where),
    )
    yield where, item


def genres_of(value: str, column: str, where: str) -> tuple[str, ...]:
  """Returns the genres of a movie; see `fields.strings`."""
  return fields.strings('' if value == _NO_GENRES else value, column, where)
