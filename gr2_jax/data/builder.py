"""The data set on disk: a TFDS data set in ArrayRecord, without TensorFlow.

Three TFDS splits hold three tables: `items`, `users` (one record a user, with
the sequence and where its held-out parts begin) and `slates`. TFDS knows one
record type a builder, so a table leaves the fields it has no use for empty.
Records stand in the order of their indices.
"""

import contextlib
import dataclasses
import io
import itertools
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from gr2_jax import progress
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import records as records_lib
from gr2_jax.data import sources, splits

_FOLDER = 'interactions'


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
  """A data set and how it is split.

  Attributes:
    source: the raw data; its name is the config's name.
    split: what is held out.
    tables: `beam.Tables` of the source, where Beam prepares it.
  """

  source: sources.SourceConfig | None = None
  split: splits.SplitConfig | None = None
  tables: Any = None


class Interactions(tfds.core.GeneratorBasedBuilder):
  """Items, users' sequences and slates of one source."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    numbers = lambda dtype: tfds.features.Tensor(shape=(None,), dtype=dtype)
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          'id': text,
          'title': text,
          'categories': tfds.features.Sequence(text),
          'brand': text,
          # As text: the format stores floats in 32 bits.
          'price': text,
          'description': text,
          'items': numbers(np.int32),
          'timestamps': numbers(np.int64),
          'labels': numbers(np.int32),
          'columns': numbers(np.float32),
          # Begin of train, valid and test in the sequence, and its end.
          'bounds': numbers(np.int64),
          # Of an item, its place in the source's file, where that is known.
          'row': numbers(np.int64),
        }
      ),
      metadata=tfds.core.MetadataDict(),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    """Reads the source; see `sources.read` for what it raises."""
    cfg = self.builder_config
    if cfg.tables is not None:
      return self._beam_generators()
    dataset = sources.read(cfg.source)
    bounds = splits.bounds(dataset.lengths, cfg.split)
    self.info.metadata['name'] = dataset.name
    self.info.metadata['sha256'] = dataset.sha256
    self.info.metadata['counts'] = dict(dataset.counts)
    self.info.metadata['slate_columns'] = list(dataset.slate_columns)
    tables = {
      'items': list(map(records_lib.of_item, dataset.items, dataset.rows)),
      'users': [
        records_lib.of_user(
          dataset.user_ids[user],
          dataset.sequence(user),
          dataset.times(user),
          bounds[user],
        )
        for user in range(dataset.num_users)
      ],
      'slates': [
        records_lib.of_slate(
          dataset.user_ids[slate.user],
          slate.timestamp,
          slate.items,
          slate.labels,
          slate.columns,
        )
        for slate in dataset.slates
      ],
    }
    return {
      name: self._generate_examples(name, records)
      for name, records in tables.items()
      if records
    }

  def _beam_generators(self) -> dict[str, Any]:
    """Gives the same tables as transforms; `write` adds the hash."""
    import apache_beam as beam

    tables, split = self.builder_config.tables, self.builder_config.split
    self.info.metadata['name'] = self.builder_config.source.name
    self.info.metadata['counts'] = dict(tables.counts)
    self.info.metadata['slate_columns'] = list(tables.slate_columns)
    found = {
      'items': tables.items() | beam.MapTuple(_beam_item),
      'users': tables.users() | beam.Map(lambda u: _beam_user(*u, split)),
    }
    if tables.num_slates:
      found['slates'] = tables.slates() | beam.MapTuple(_beam_slate)
    return found

  def _generate_examples(self, name, records) -> Iterator:
    bar = progress.bar(records, desc=f'write {name}', unit='record')
    yield from enumerate(bar)


def _beam_item(index: int, item: dataset_lib.Item) -> tuple[int, dict]:
  return index, records_lib.of_item(item)


def _beam_user(
  index: int, user: tuple, split: splits.SplitConfig
) -> tuple[int, dict]:
  bounds = splits.bounds(np.array([len(user[1])]), split)[0]
  return index, records_lib.of_user(*user, bounds)


def _beam_slate(index: int, slate: tuple) -> tuple[int, dict]:
  return index, records_lib.of_slate(*slate)


def write(
  directory: pathlib.Path,
  source: sources.SourceConfig,
  split: splits.SplitConfig,
) -> None:
  """Reads a source and writes it as a TFDS data set.

  TFDS writes to a folder of another name and moves it when it is complete, so
  a process that is killed leaves no half data set behind.

  Args:
    directory: where to; a data set that is there already must be of the same
      source and split, and is kept.
    source: the raw data.
    split: what is held out.

  Raises:
    FileNotFoundError: a missing file or folder.
    ValueError: bad input, with file, line and remedy.
  """
  tfds.disable_progress_bar()
  config = Config(name=source.name, source=source, split=split)
  builder = Interactions(
    config=config, data_dir=directory, file_format='array_record'
  )
  if source.beam:
    _prepare_by_beam(builder, directory / 'beam')
    return
  # TFDS prints that it downloads something of unknown size, which is not so.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()


def _prepare_by_beam(builder: Interactions, folder: pathlib.Path) -> None:
  """Writes the data set by Beam, and last its hash."""
  from gr2_jax.data import beam

  config = builder.builder_config
  if not builder.is_prepared():
    config.tables = beam.Tables(config.source, folder)
    download = tfds.download.DownloadConfig(beam_options=config.tables.options)
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(download_config=download)
    shutil.rmtree(folder)
  builder.info.metadata['sha256'] = _dataset(builder).sha256
  builder.info.write_to_directory(builder.data_dir)


def read(directory: pathlib.Path) -> dataset_lib.Dataset:
  """Reads the data set that `write` left; see `stored.load`."""
  found = sorted(directory.glob(f'{_FOLDER}/*/*/dataset_info.json'))
  if len(found) != 1:
    raise FileNotFoundError(
      f'{directory} holds {len(found)} data sets, not one; run the stage data '
      'for this workdir (again).'
    )
  builder = _open(found[0].parent)
  dataset = _dataset(builder)
  if dataset.sha256 != builder.info.metadata['sha256']:
    raise ValueError(
      f'The data set in {found[0].parent} was changed after it was written '
      '(another hash); delete the folder and run the stage data again.'
    )
  return dataset


def _open(folder: pathlib.Path) -> tfds.core.DatasetBuilder:
  """Returns the builder of a data set on disk, of which nothing is missing."""
  kinds = {'name': str, 'sha256': str, 'counts': Mapping, 'slate_columns': list}
  try:
    builder = tfds.builder_from_directory(folder)
    metadata = builder.info.metadata
    # Data sets of before there were columns have no names of them.
    found = {'slate_columns': [], **metadata}
    wrong = [n for n, k in kinds.items() if not isinstance(found[n], k)]
    if wrong:
      raise ValueError(f'metadata.json: {wrong}')
  except Exception as error:  # TFDS raises many classes.
    raise ValueError(
      f'{folder} is damaged ({error}): restore it from a copy, or delete it '
      'and run the stage data again.'
    ) from error
  return builder


def _dataset(builder: tfds.core.DatasetBuilder) -> dataset_lib.Dataset:
  users, items = _records(builder, 'users'), _records(builder, 'items')
  user_ids = [records_lib.texts(user, 'id')[0] for user in users]
  user_of = {user_id: index for index, user_id in enumerate(user_ids)}
  sequences = [records_lib.integers(user, 'items') for user in users]
  times = [records_lib.integers(user, 'timestamps') for user in users]
  return dataset_lib.Dataset(
    name=builder.info.metadata['name'],
    items=list(map(records_lib.to_item, items)),
    user_ids=user_ids,
    flat=np.array(list(itertools.chain(*sequences)), np.int32),
    offsets=np.cumsum([0, *(len(part) for part in sequences)], dtype=np.int64),
    timestamps=np.array(list(itertools.chain(*times)), np.int64),
    slates=[
      records_lib.to_slate(record, user_of)
      for record in _records(builder, 'slates')
    ],
    # Data sets of before there were columns have no names of them.
    slate_columns=tuple(builder.info.metadata.get('slate_columns', ())),
    counts=builder.info.metadata['counts'],
    # Data sets of Beam, and of before it was written, do not have it.
    rows=np.array(
      [row for item in items for row in records_lib.integers(item, 'row')],
      np.int64,
    ),
  )


def _records(
  builder: tfds.core.DatasetBuilder, table: str
) -> list[records_lib.Record]:
  """Reads a table; ten times faster than by TFDS's decoder of features."""
  if table not in builder.info.splits:
    return []
  split = builder.info.splits[table]
  shards = zip(split.filepaths, split.shard_lengths, strict=True)
  return [record for path, size in shards for record in _read_shard(path, size)]


def _read_shard(path: Any, size: int) -> list[records_lib.Record]:
  """Reads a file of records; names it where it is damaged."""
  try:
    reader = array_record_module.ArrayRecordReader(str(path))
    found = [
      tf_example_pb2.Example.FromString(record).features.feature
      for record in reader.read_all()
    ]
    reader.close()
  except Exception as error:
    raise ValueError(
      f'{path} is damaged ({error}): restore it from a copy, or delete '
      f'{path.parent} and run the stage data again.'
    ) from error
  if len(found) != size:
    raise ValueError(
      f'{path} is damaged (it holds {len(found)} of {size} records): restore '
      f'it from a copy, or delete {path.parent} and run the stage data again.'
    )
  return found
