"""The data set made by Apache Beam, where the raw data outgrow one machine.

The rules are those of `clean.clean`, with the same result. Users and their
interactions are spread over Beam's workers; only the ids of the items must fit
each worker's memory, as must the history of one user. Workers and this process
share a file system: tables go from one pipeline to the next as JSON lines. A
k-core takes `ROUNDS` rounds a pipeline, until nothing changes: no pipeline has
a loop.

Needs `apache-beam`, an extra of this project; nothing else imports this module.
"""

import json
import pathlib
import shutil
from collections.abc import Mapping

import apache_beam as beam
from apache_beam.options import pipeline_options

from gr2_jax.data import beam_steps as steps
from gr2_jax.data import doubts, generic

# Rounds of the k-core in one pipeline: each pipeline has a start of its own.
ROUNDS = 4


class Tables:
  """The tables of a raw data set, cleaned, in a folder.

  Attributes:
    counts: as `clean.clean` gives them.
    num_slates: slates that are left.
    slate_columns: names of the columns that slates carry.
    options: Beam's.
  """

  def __init__(self, source, folder: pathlib.Path):
    """Makes the tables.

    Args:
      source: `sources.SourceConfig` of kind 'generic', with `beam` options.
      folder: for intermediate files, on the shared file system; what is in it
        is removed.

    Raises:
      FileNotFoundError: a missing file.
      ValueError: nothing is left. What is wrong with a row is in the message of
        the exception that the runner raises.
    """
    self._source, self._folder = source, folder
    self.options = pipeline_options.PipelineOptions(source.beam.split())
    # What comes out of JSON has no types that Beam could check.
    checks = self.options.view_as(pipeline_options.TypeOptions)
    checks.pipeline_type_check = False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    self._files = generic.parts(source.folder)
    self.slate_columns = ()
    if self._files['slates']:
      self.slate_columns = generic.slate_columns(self._files['slates'][0])
    found = self._gather()
    doubts.check_units(found, source.name)
    kept = self._core(found['unique'])
    if not kept:
      raise ValueError(
        f'Data set {source.name!r}: of {found["rows"]} interactions none is '
        f'left with core={source.core}; lower config.data.core or bring more '
        'data.'
      )
    self.counts = self._finish(found)

  def items(self) -> beam.PTransform:
    """Gives (index, `dataset.Item`)."""
    return steps.Read(
      self._folder / 'kept-items', lambda row: (row[0], steps.item(row[1]))
    )

  def users(self) -> beam.PTransform:
    """Gives (index, (id, item indices, timestamps)), oldest first."""
    return steps.Read(self._folder / 'kept-users', tuple)

  def slates(self) -> beam.PTransform:
    """Gives (index, (user id, timestamp, item indices, labels, columns))."""
    return steps.Read(self._folder / 'kept-slates', tuple)

  def _pipeline(self) -> beam.Pipeline:
    return beam.Pipeline(options=self.options)

  def _path(self, name: str) -> str:
    return str(self._folder / name)

  def _count(self, rows, count, name: str) -> None:
    """Adds up `count(row)` for `_counts`."""
    rows | f'Count {name}' >> steps.counted(count, self._path(f'counts-{name}'))

  def _counts(self, *names: str) -> dict[str, int]:
    """Returns the sums of these names; what was never counted is missing."""
    return dict(
      json.loads(line)
      for name in names
      for path in self._folder.glob(f'counts-{name}-*-of-*')
      for line in path.read_text().splitlines()
    )

  def _gather(self) -> dict[str, int]:
    """Reads the raw tables; writes items and each user's distinct rows."""
    with self._pipeline() as pipeline:
      items = (
        pipeline
        | 'ItemFiles' >> beam.Create([str(p) for p in self._files['items']])
        | 'ReadItems' >> beam.FlatMap(steps.read_items)
        | beam.GroupByKey()
        | 'UniqueItems' >> beam.Map(steps.unique_item)
      )
      known = beam.pvalue.AsDict(items | beam.Map(lambda row: (row[0], None)))
      items | 'KeepItems' >> steps.write(self._path('items'))
      histories = (
        pipeline
        | 'Files' >> beam.Create(steps.numbered(self._files['interactions']))
        | 'ReadRows' >> beam.FlatMap(steps.read_rows, known)
        | 'ByUser' >> beam.GroupByKey()
        | 'InOrder' >> beam.Map(steps.in_order)
      )
      (
        histories
        | beam.Map(steps.without_duplicates)
        | steps.write(self._path('rows-0'))
      )
      self._count(histories, steps.raw_counts, 'rows')
      self._count(items, lambda _: {'items': 1}, 'items')
      slates = (
        pipeline
        | 'SlateFiles' >> beam.Create(steps.numbered(self._files['slates']))
        | 'ReadSlates'
        >> beam.FlatMap(steps.read_slates, known, self.slate_columns)
      )
      slates | 'KeepSlates' >> steps.write(self._path('slates'))
      self._count(slates, lambda _: {'slates': 1}, 'slates')
    return self._counts('rows', 'items', 'slates')

  def _core(self, count: int) -> int:
    """Drops rare users and items until none is left; returns the rows left."""
    core, number = self._source.core, 0
    while core and count:
      with self._pipeline() as pipeline:
        rows = pipeline | steps.Read(self._folder / f'rows-{number}', tuple)
        for index in range(ROUNDS):
          if index == ROUNDS - 1:
            self._count(rows, steps.size, f'before-{number}')
          rows = rows | f'Round{index}' >> steps.CoreRound(core)
        self._count(rows, steps.size, f'after-{number}')
        rows | 'Keep' >> steps.write(self._path(f'rows-{number + 1}'))
      before = self._counts(f'before-{number}').get('rows', 0)
      count = self._counts(f'after-{number}').get('rows', 0)
      number += 1
      if count == before:
        break
    self._last = self._folder / f'rows-{number}'
    return count

  def _finish(self, found: Mapping[str, int]) -> dict[str, int]:
    """Gives users, items and slates their indices, and counts all."""
    with self._pipeline() as pipeline:
      rows = pipeline | 'Rows' >> steps.Read(self._last, tuple)
      items = pipeline | 'Items' >> steps.Read(self._folder / 'items', tuple)
      if self._source.core:
        used = beam.pvalue.AsDict(
          rows
          | beam.FlatMap(lambda history: [row[0] for row in history[1]])
          | beam.Distinct()
          | 'Used' >> beam.Map(lambda item: (item, None))
        )
        items |= beam.Filter(lambda row, used: row[0] in used, used)
      numbered = items | 'NumberItems' >> steps.Number()
      numbered | 'KeepItems' >> steps.write(self._path('kept-items'))
      index = beam.pvalue.AsDict(
        numbered | beam.Map(lambda row: (row[1]['item_id'], row[0]))
      )
      (
        rows
        | 'Sequences' >> beam.Map(steps.sequence, index)
        | 'NumberUsers' >> steps.Number()
        | 'KeepUsers' >> steps.write(self._path('kept-users'))
      )
      self._count(rows, steps.kept_counts, 'kept-rows')
      self._count(items, steps.item_counts, 'kept-items')
      slates = pipeline | 'Slates' >> steps.Read(self._folder / 'slates', tuple)
      users = rows | beam.Map(lambda history: (history[0], None))
      slates = (
        {'user': users, 'slates': slates}
        | beam.CoGroupByKey()
        | beam.FlatMap(steps.known_slates, index)
      )
      self._count(slates, lambda _: {'slates': 1}, 'kept-slates')
      (
        slates
        | 'NumberSlates' >> steps.Number()
        | 'KeepSlates' >> steps.write(self._path('kept-slates'))
      )
    kept = self._counts('kept-rows', 'kept-items', 'kept-slates')
    self.num_slates = kept.get('slates', 0)
    return steps.clean_counts(found, kept)
