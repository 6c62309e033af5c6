"""Reads the raw Amazon product data of 2014, 2018 and 2023 (McAuley et al.).

| year | reviews | metadata |
|---|---|---|
| 2014 | `reviews_X_5.json` | `meta_X.json`: Python literals, `categories` |
| 2018 | `X_5.json`, `X.json` | `meta_X.json`: JSON, `category` |
| 2023 | `X.jsonl`, `X.csv` | `meta_X.jsonl`: JSON, `parent_asin`, times in ms |

each also as `.gz`; where a folder has `X.csv`, the ratings alone, it is read in
place of `X.jsonl`. Reviews have a JSON object a line:

    {"reviewerID": "U1", "asin": "B1", "unixReviewTime": 1355788800}
    {"reviewerID": "U1", "asin": "B2", "unixReviewTime": 1355788801}
    {"reviewerID": "U2", "asin": "B2", "unixReviewTime": 1355788802}
    {"reviewerID": "U2", "asin": "B1", "unixReviewTime": 1355788803}
    {"reviewerID": "U3", "asin": "B1", "unixReviewTime": 1355788804}

in 2023 `{"user_id": .., "parent_asin": .., "timestamp": ..}`. Metadata of every
year may be JSON or Python literals:

    {'asin': 'B1', 'title': 'Rose', 'categories': [['Oils'], ['Care', 'Oil']]}
    {"asin": "B2", "title": "Balm", "category": ["Beauty"], "price": "$4.99"}
    {"parent_asin": "B1", "title": "Rose", "categories": ["Care", "Oil"]}

Of them only the lines of reviewed items are read: the 5-core of Beauty has
12,101 of 259,204 items.
"""

import functools
import itertools
import math
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from absl import logging

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import delimited, fields, literals, raw, raw_files, tables

_ASIN = re.compile(r"""['"](?:parent_)?asin['"]\s*:\s*['"]([^'"]+)['"]""")
_IDS = ('parent_asin', 'asin')
_SCRIPT = 'getTime()'
_PRICE = re.compile(r'\$?\s*(\d[\d,]*(?:\.\d+)?)')


class _Layout(NamedTuple):
  """How a year's files are called and what their keys are.

  Attributes:
    reviews: globs; the first that names a file counts.
    meta: glob.
    user: key of reviews.
    item: key of reviews and metadata.
    time: key of reviews.
    whole: whether every reviewed item has a record.
  """

  reviews: tuple[str, ...]
  meta: str
  user: str
  item: str
  time: str
  whole: bool


_KEYS = ('reviewerID', 'asin', 'unixReviewTime')
_LAYOUTS = {
  2014: _Layout(('reviews_*_5.json',), 'meta_*.json', *_KEYS, whole=True),
  2018: _Layout(('*.json',), 'meta_*.json', *_KEYS, whole=False),
  2023: _Layout(
    ('*.csv', '*.jsonl'),
    *('meta_*.jsonl', 'user_id', 'parent_asin', 'timestamp'),
    whole=False,
  ),
}


def paths(folder: pathlib.Path, year: int = 2014) -> dict[str, pathlib.Path]:
  """Finds the two files of a folder.

  Args:
    folder: where they are.
    year: 2014, 2018 or 2023.

  Returns:
    'reviews' and 'meta' -> file.

  Raises:
    FileNotFoundError: not exactly one file of a kind.
  """
  layout = _LAYOUTS[year]
  *others, usual = layout.reviews
  found = [glob for glob in others if raw_files.some(folder, glob)]
  return {
    'reviews': raw_files.one(folder, [*found, usual][0], but='meta_*'),
    'meta': raw_files.one(folder, layout.meta),
  }


def read(folder: pathlib.Path, year: int = 2014) -> raw.Raw:
  """Reads reviews and the records of the reviewed items.

  Of several category paths of an item the longest counts (the first of the
  longest), of several records the first; a price that is no single number and a
  title that is a script are taken as unknown; HTML entities in texts are
  resolved: our choice. In 2018 and 2023 some items have no record: their
  reviews are left out, with a warning.

  Args:
    folder: holds reviews and metadata.
    year: 2014, 2018 or 2023.

  Returns:
    Their content, checked.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  files, layout = paths(folder, year), _LAYOUTS[year]
  is_csv = '.csv' in files['reviews'].suffixes
  read_rows = delimited.rows if is_csv else tables.json_lines
  each = functools.partial(
    read_rows, files['reviews'], (layout.user, layout.item, layout.time)
  )
  reviews = [
    raw.Interaction(
      sys.intern(fields.identifier(row[layout.user], layout.user, where)),
      sys.intern(fields.identifier(row[layout.item], layout.item, where)),
      fields.timestamp(row[layout.time], where),
    )
    for where, row in each()
  ]
  items = items_of(files['meta'], {row.item_id for row in reviews})
  known = [row for row in reviews if row.item_id in items]
  if len(known) < len(reviews):
    first = next(n for n, row in enumerate(reviews) if row.item_id not in items)
    item = reviews[first].item_id
    where, _ = next(itertools.islice(each(), first, None))
    if layout.whole or not known:
      raw.known_item(item, items, where, files['meta'].name)
    text = (
      f'{where}: {len(reviews) - len(known)} of {len(reviews)} reviews are '
      f'left out, since {files["meta"].name} has no record of their items; the '
      f'first is {item!r}.'
    )
    logging.warning('%s', text)
  return raw.Raw(tuple(items.values()), known)


def items_of(
  path: pathlib.Path, wanted: set[str]
) -> dict[str, dataset_lib.Item]:
  """Reads the records of some items.

  Args:
    path: the metadata of one of the years.
    wanted: ids.

  Returns:
    Item by id, of those that have a record.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: bad input, with file, line and remedy.
  """
  found: dict[str, dataset_lib.Item] = {}
  others = []
  for where, item in _each_item(path, wanted):
    if found.setdefault(item.item_id, item) != item:
      others.append(where)
  if others:
    logging.warning(
      '%s: %d records are left out, since their items have another one before '
      'them, which says other things.',
      *(others[0], len(others)),
    )
  if found and not any(item.categories for item in found.values()):
    logging.warning(
      '%s: no item has categories: its key categories or category is missing '
      'or empty in all.',
      path,
    )
  return found


def _each_item(
  path: pathlib.Path, wanted: set[str]
) -> Iterator[tuple[str, dataset_lib.Item]]:
  for number, line in enumerate(raw_files.lines(path), 1):
    ids = _ASIN.findall(line)
    if not line.strip() or (ids and wanted.isdisjoint(ids)):
      continue
    where = f'{path}:{number}'
    try:
      record = literals.literal(line)
      if not isinstance(record, dict) or not record.keys() & {*_IDS}:
        raise ValueError(f'no object with one of the keys {_IDS}')
    except ValueError as error:
      raise ValueError(
        f'{where}: not a Python literal with an asin, nor JSON ({error}); fix '
        'or remove the line.'
      ) from error
    item = _item(record, where)
    if item.item_id in wanted:
      yield where, item


def _item(record: dict[str, Any], where: str) -> dataset_lib.Item:
  key = next(key for key in _IDS if key in record)
  brand = record.get('brand') or record.get('store')
  title = fields.text(record.get('title'), 'title', where)
  texts = {
    # In 2018 some titles are JavaScript of the page that they were taken from.
    'title': '' if _SCRIPT in title else title,
    'brand': fields.text(brand, 'brand', where),
    'description': fields.prose(
      record.get('description'), 'description', where
    ),
  }
  return dataset_lib.Item(
    item_id=fields.identifier(record[key], key, where),
    categories=tuple(map(fields.unescaped, _categories(record, where))),
    price=_price(record.get('price'), where),
    **{name: fields.unescaped(value) for name, value in texts.items()},
  )


def _categories(record: dict[str, Any], where: str) -> tuple[str, ...]:
  """Returns the path from the root: the longest, where there are several."""
  name = 'categories' if 'categories' in record else 'category'
  given = record.get(name) or []
  if isinstance(given, list) and all(isinstance(t, list) for t in given):
    given = max(given, key=len, default=[])
  if not isinstance(given, list):
    raise ValueError(
      f'{where}: {name} is {fields.shown(given)}; give a list of paths, each a '
      'list, or one path.'
    )
  return fields.strings(given, name, where)


def _price(value: Any, where: str) -> float | None:
  """Returns a price; what was cut out of a page may hold anything."""
  if not isinstance(value, str):
    return fields.price(value, where)
  match = _PRICE.fullmatch(value.strip())
  number = float(match[1].replace(',', '')) if match else math.inf
  return number if number < math.inf else None
