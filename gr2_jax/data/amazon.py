"""Reads the raw Amazon product data of 2014 (McAuley et al.).

`reviews_X_5.json.gz` has a JSON object a line; `meta_X.json.gz` has a Python
literal a line, with single quotes. Of the latter only the lines of reviewed
items are read: the 5-core of Beauty has 12,101 of 259,204 items.
"""

import ast
import html
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import fields, raw, tables

# What `ast.literal_eval` raises, one way or another.
_NO_LITERAL = (
  *(ValueError, TypeError, SyntaxError, MemoryError, RecursionError),
)
_ASIN = re.compile(r"""['"]asin['"]: *['"]([^'"]+)['"]""")


def paths(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the two files of a folder.

  Args:
    folder: where they are.

  Returns:
    'reviews' and 'meta' -> file.

  Raises:
    FileNotFoundError: not exactly one file of a kind.
  """
  found = {}
  for kind, pattern in (
    ('reviews', 'reviews_*_5.json*'),
    ('meta', 'meta_*.json*'),
  ):
    files = sorted(
      path
      for path in folder.glob(pattern)
      if path.name.endswith(('.json', '.json.gz'))
    )
    if len(files) != 1:
      raise FileNotFoundError(
        f'{folder}: {len(files)} files match {pattern}; put exactly one there '
        '(.json or .json.gz), and set config.data.dir to the folder.'
      )
    found[kind] = files[0]
  return found


def read(folder: pathlib.Path) -> raw.Raw:
  """Reads reviews and the records of the reviewed items.

  Of several category paths of an item the longest counts (the first of the
  longest), our choice; HTML entities in texts are resolved.

  Args:
    folder: holds `reviews_X_5.json.gz` and `meta_X.json.gz`.

  Returns:
    Their content, checked.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  files = paths(folder)
  reviews = [
    (
      where,
      raw.Interaction(
        fields.identifier(row['reviewerID'], 'reviewerID', where),
        fields.identifier(row['asin'], 'asin', where),
        fields.timestamp(row['unixReviewTime'], where),
      ),
    )
    for where, row in tables.json_lines(
      files['reviews'], ('reviewerID', 'asin', 'unixReviewTime')
    )
  ]
  reviewed = {review.item_id for _, review in reviews}
  items = raw.unique_items(_items(files['meta'], reviewed))
  for where, review in reviews:
    raw.known_item(review.item_id, items, where, files['meta'].name)
  return raw.Raw(tuple(items.values()), [review for _, review in reviews])


def _items(
  path: pathlib.Path, wanted: set[str]
) -> Iterator[tuple[str, dataset_lib.Item]]:
  for number, line in enumerate(tables.lines(path), 1):
    match = _ASIN.search(line)
    if not line.strip() or (match and match[1] not in wanted):
      continue
    where = f'{path}:{number}'
    try:
      record = ast.literal_eval(line)
      if not isinstance(record, dict) or 'asin' not in record:
        raise ValueError('no dict with the key "asin"')
    except _NO_LITERAL as error:
      raise ValueError(
        f'{where}: not a Python literal with an asin ({error}); mend or remove '
        'the line.'
      ) from error
    yield where, _item(record, where)


def _unescape(text: str) -> str:
  """Resolves entities; what they spell is a text as any other."""
  return html.unescape(text).translate(fields.CONTROLS)


def _item(record: dict[str, Any], where: str) -> dataset_lib.Item:
  trees = record.get('categories') or [[]]
  if not isinstance(trees, list) or not all(isinstance(t, list) for t in trees):
    raise ValueError(
      f'{where}: categories is {trees!r}; give a list of paths, each a list.'
    )
  texts = {
    name: _unescape(fields.text(record.get(name), name, where))
    for name in ('title', 'brand', 'description')
  }
  path = fields.strings(max(trees, key=len), 'categories', where)
  return dataset_lib.Item(
    item_id=fields.identifier(record['asin'], 'asin', where),
    categories=tuple(map(_unescape, path)),
    price=fields.price(record.get('price'), where),
    **texts,
  )
