"""The steps of `beam.py`: what is done with a row, a user, a table.

A row is of one user: item, time and place in the files.
"""

import bisect
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import doubts, generic, raw

# Ranges of keys; each is sorted in one worker's memory.
_BUCKETS = 1000

Row = tuple[str, int, tuple[int, int]]
# A user and the rows.
History = tuple[str, list[Row]]


def numbered(paths: Sequence[pathlib.Path]) -> list[tuple[int, str]]:
  """Numbers files: rows are ordered by (file, row)."""
  return [(index, str(path)) for index, path in enumerate(paths)]


def read_items(path: str) -> Iterator[tuple[str, tuple[str, dict]]]:
  """Yields (id, (file and line, fields)) of one file."""
  for where, item in generic.each_item(pathlib.Path(path)):
    yield item.item_id, (where, dataclasses.asdict(item))


def unique_item(found: tuple[str, Iterable]) -> tuple[str, dict]:
  """Returns the one record of an id; two are an error."""
  item_id, records = found
  pairs = [(where, item(record)) for where, record in sorted(records)]
  raw.unique_items(pairs)
  return item_id, dataclasses.asdict(pairs[0][1])


def item(record: Mapping[str, Any]) -> dataset_lib.Item:
  """Returns the item of its fields."""
  return dataset_lib.Item(
    **{**record, 'categories': tuple(record['categories'])}
  )


def read_rows(
  file: tuple[int, str], known: Mapping[str, None]
) -> Iterator[tuple[str, Row]]:
  """Yields (user, row) of one file; `known` has the items' ids."""
  index, path = file
  rows = generic.each_interaction(pathlib.Path(path), known, 'the items')
  for number, row in enumerate(rows):
    yield row.user_id, (row.item_id, row.timestamp, (index, number))


def read_slates(
  file: tuple[int, str], known: Mapping[str, None], columns: Sequence[str]
) -> Iterator[tuple[str, tuple]]:
  """Yields (user, (time, place, items, labels, columns)) of one file."""
  index, path = file
  slates = generic.each_slate(pathlib.Path(path), known, 'the items', columns)
  for number, slate in enumerate(slates):
    shown = slate.item_ids, slate.labels, slate.columns
    yield slate.user_id, (slate.timestamp, (index, number), *shown)


def in_order(found: tuple[str, Iterable[Row]]) -> History:
  """Puts a user's rows in the order of the files."""
  user, rows = found
  return user, sorted(rows, key=lambda row: row[2])


def without_duplicates(history: History) -> History:
  """Keeps the first of equal rows."""
  user, rows = history
  first: dict[tuple[str, int], Row] = {}
  for row in rows:
    first.setdefault((row[0], row[1]), row)
  return user, list(first.values())


def raw_counts(history: History) -> dict[str, int]:
  """Counts a user's rows as they were read."""
  times = [row[1] for row in history[1]]
  return {
    'users': 1,
    'rows': len(times),
    'unique': len(without_duplicates(history)[1]),
    'out_of_order': sum(b < a for a, b in itertools.pairwise(times)),
    **doubts.units(np.array(times, np.int64)),
  }


def size(history: History) -> dict[str, int]:
  """Counts a user's rows."""
  return {'rows': len(history[1])}


def kept_counts(history: History) -> dict[str, int]:
  """Counts the rows of a user who is kept."""
  items = [row[0] for row in history[1]]
  return {
    'users': 1,
    'interactions': len(items),
    'repeats': len(items) - len(set(items)),
  }


def item_counts(item: tuple[str, Mapping]) -> dict[str, int]:
  """Counts an item that is kept."""
  return {'items': 1, 'untitled': int(not item[1]['title'])}


def clean_counts(
  found: Mapping[str, int], kept: Mapping[str, int]
) -> dict[str, int]:
  """Returns what `clean.clean` counts, of counts of all and of what is kept."""
  return {
    'users': kept['users'],
    'items': kept['items'],
    'interactions': kept['interactions'],
    'out_of_order': found['out_of_order'],
    'duplicates': found['rows'] - found['unique'],
    'below_core_users': found['users'] - kept['users'],
    'below_core_items': found['items'] - kept['items'],
    'below_core_interactions': found['unique'] - kept['interactions'],
    'repeats': kept['repeats'],
    'dropped_slates': found.get('slates', 0) - kept.get('slates', 0),
    'untitled': kept['untitled'],
  }


def sequence(history: History, index: Mapping[str, int]) -> tuple[str, tuple]:
  """Returns (user, (user, item indices, times)), oldest first."""
  user, rows = history
  rows = sorted(rows, key=lambda row: (row[1], row[2]))
  return user, (user, [index[row[0]] for row in rows], [r[1] for r in rows])


def known_slates(
  found: tuple[str, Mapping[str, Iterable]], index: Mapping[str, int]
) -> Iterator[tuple[tuple, tuple]]:
  """Indexes the slates of a kept user that hold kept items only."""
  user, both = found
  if not list(both['user']):
    return
  for timestamp, place, items, *told in both['slates']:
    if all(item in index for item in items):
      shown = [index[item] for item in items]
      yield (user, timestamp, *place), (user, timestamp, shown, *told)


class Read(beam.PTransform):
  """Reads what `_write` left, each row as `make` makes it of a list."""

  def __init__(self, path: pathlib.Path, make):
    super().__init__()
    self._path, self._make = path, make

  def expand(self, pipeline):
    """Reads the rows."""
    return (
      pipeline
      | beam.io.ReadFromText(f'{self._path}-*')
      | beam.Map(json.loads)
      | 'Make' >> beam.Map(self._make)
    )


@beam.ptransform_fn
def write(rows, path: str):
  """Writes rows as JSON lines, in files that begin with `path`."""
  return rows | beam.Map(json.dumps) | beam.io.WriteToText(path)


@beam.ptransform_fn
def counted(rows, count, path: str):
  """Adds up `count(row)`, a dict, over all rows into files at `path`."""
  return (
    rows
    | 'Count' >> beam.FlatMap(lambda row: list(count(row).items()))
    | beam.CombinePerKey(sum)
    | beam.Map(json.dumps)
    | beam.io.WriteToText(path)
  )


class CoreRound(beam.PTransform):
  """Drops items with fewer than `core` rows, then users with fewer."""

  def __init__(self, core: int):
    super().__init__()
    self._core = core

  def expand(self, histories):
    """Makes one round."""
    core = self._core
    rows = (
      histories
      | beam.FlatMap(lambda history: [row[0] for row in history[1]])
      | beam.combiners.Count.PerElement()
    )

    def keep(history, counts):
      user, kept = history[0], [r for r in history[1] if counts[r[0]] >= core]
      if len(kept) >= core:
        yield user, kept

    return histories | 'Keep' >> beam.FlatMap(keep, beam.pvalue.AsDict(rows))


class Number(beam.PTransform):
  """Makes (index, value) of (key, value): the place among the sorted keys.

  Keys fall into ranges of about equal size, and each range is sorted apart.
  """

  def expand(self, pairs):
    """Numbers the pairs."""
    borders = (
      pairs | beam.Keys() | beam.ApproximateQuantiles.Globally(_BUCKETS + 1)
    )
    ranges = (
      pairs
      | 'Range'
      >> beam.Map(
        lambda pair, borders: (bisect.bisect(borders, pair[0]), pair),
        beam.pvalue.AsSingleton(borders),
      )
      | beam.GroupByKey()
    )
    sizes = ranges | 'Size' >> beam.Map(lambda r: (r[0], sum(1 for _ in r[1])))

    def number(found, sizes):
      own, members = found
      begin = sum(size for other, size in sizes.items() if other < own)
      members = sorted(members, key=lambda pair: pair[0])
      for index, (_, value) in enumerate(members, begin):
        yield index, value

    return ranges | 'Number' >> beam.FlatMap(number, beam.pvalue.AsDict(sizes))
