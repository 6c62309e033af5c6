"""Reads MovieLens as GroupLens publishes it since 2015, in CSV.

These are ml-20m, ml-25m, ml-32m, ml-latest and ml-latest-small. A folder holds
`movies.csv` and `ratings.csv`; other files of the archive are ignored.

movies.csv, the categories are the genres:

    movieId,title,genres
    1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy
    11,"American President, The (1995)",Comedy|Drama|Romance
    73,"Misérables, Les (1995)",Drama|War
    7789,"11'09""01 - September 11 (2002)",Drama
    126106,Beastie Boys: Sabotage (1994),(no genres listed)

ratings.csv, by user and movie, the time in seconds since 1970; every rating
counts as an interaction, whatever its stars, as is usual in sequential
recommendation:

    userId,movieId,rating,timestamp
    1,11,2.5,1260759144
    1,73,3.0,1260759179
    2,1,4.0,835355493
    2,7789,5.0,835355681
    3,126106,4.5,1298861675
"""

import functools
import pathlib
from collections.abc import Iterator

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import delimited, fields, movielens_1m, raw, raw_files

_MOVIE = ('movieId', 'title', 'genres')
_RATING = ('userId', 'movieId', 'timestamp')


# Finds the two files of a folder.
paths = functools.partial(
  raw_files.two, items='movies.csv', interactions='ratings.csv'
)


def read(folder: pathlib.Path) -> raw.Raw:
  """Reads the two files.

  Args:
    folder: holds `movies.csv` and `ratings.csv`.

  Returns:
    Their content, checked.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  files = paths(folder)
  items = raw.unique_items(_items(files['items']))
  interactions = [
    raw.interaction(
      tuple(row[name] for name in _RATING),
      *(items, where, files['items'].name, _RATING[:2]),
    )
    for where, row in delimited.rows(files['interactions'], _RATING)
  ]
  return raw.Raw(tuple(items.values()), interactions)


def _items(path: pathlib.Path) -> Iterator[tuple[str, dataset_lib.Item]]:
  for where, row in delimited.rows(path, _MOVIE):
    item = dataset_lib.Item(
      item_id=fields.identifier(row['movieId'], 'movieId', where),
      title=fields.text(row['title'], 'title', where),
      categories=movielens_1m.genres_of(row['genres'], 'genres', where),
    )
    yield where, item
