"""Training examples in ArrayRecord files, read at random.

Examples that are costly to make, or more than memory holds, are made once. Each
worker process of the input pipeline then opens the files by itself.
"""

import bisect
import itertools
import os
import pathlib
import shutil
from collections.abc import Mapping

import grain
import numpy as np
from array_record.python import array_record_module

from gr2_jax import files, progress

# Read one by one in any order: each record is compressed by itself.
_OPTIONS = 'group_size:1'
_INDEX = 'shards.json'


def write(source, directory: pathlib.Path, count: int) -> None:
  """Writes a source's examples, in their order, to ArrayRecord files.

  Complete or not at all: the directory appears when the files are written.

  Args:
    source: `pipeline.Source` to write.
    directory: where to; one that is there already is left as it is, for runs
      that continue, and must hold as many examples.
    count: number of files.

  Raises:
    ValueError: fewer examples than files, or a directory of other examples.
  """
  if not 1 <= count <= len(source):
    raise ValueError(
      f'{directory}: {count} shards for {len(source)} examples; use 1 up to as '
      'many as there are examples.'
    )
  if directory.exists():
    found = len(Shards(directory))
    if found != len(source):
      raise ValueError(
        f'{directory} holds {found} examples, not {len(source)}: they are of '
        'other data. Delete the folder.'
      )
    return
  temporary = directory.with_name(f'.{directory.name}.{os.getpid()}.tmp')
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir(parents=True)
  ends = [len(source) * (shard + 1) // count for shard in range(count)]
  with progress.bar(
    total=len(source), desc=f'write {directory.name}', unit='example'
  ) as bar:
    for shard, (begin, end) in enumerate(itertools.pairwise([0, *ends])):
      name = f'examples-{shard:05d}-of-{count:05d}.array_record'
      writer = array_record_module.ArrayRecordWriter(
        str(temporary / name), _OPTIONS
      )
      for index in range(begin, end):
        writer.write(_encode(source[index]))
        bar.update()
      writer.close()
  files.write_json(temporary / _INDEX, {'ends': ends})
  temporary.rename(directory)


class Shards:
  """A source of the language-model pipeline; see `pipeline.Source`."""

  def __init__(self, directory: pathlib.Path):
    """Opens what `write` left.

    Args:
      directory: where the files are.

    Raises:
      FileNotFoundError: there are none.
      ValueError: a file is missing, or holds another number of examples.
    """
    index = directory / _INDEX
    if not index.exists():
      raise FileNotFoundError(
        f'{index}: no such file; write the examples (again).'
      )
    self._ends = files.read_json(index)['ends']
    self._paths = [str(p) for p in sorted(directory.glob('*.array_record'))]
    if len(self._paths) != len(self._ends):
      raise ValueError(
        f'{directory} holds {len(self._paths)} files of examples, not '
        f'{len(self._ends)}; delete it, and write the examples again.'
      )
    sizes = np.diff(self._ends, prepend=0).tolist()
    for path, size in zip(self._paths, sizes, strict=True):
      self._check(path, size)
    self._source = grain.sources.ArrayRecordDataSource(self._paths)

  def _check(self, path: str, size: int) -> None:
    try:
      reader = array_record_module.ArrayRecordReader(path)
      found = reader.num_records()
      reader.close()
    except (RuntimeError, ValueError, IndexError) as error:
      raise ValueError(_damaged(path, error)) from error
    if found != size:
      raise ValueError(_damaged(path, f'{found} examples instead of {size}'))

  def __len__(self) -> int:
    """Returns the number of examples."""
    return self._ends[-1]

  def __getitem__(self, index: int) -> Mapping[str, np.ndarray]:
    """Returns {'tokens': int32 [t], 'weights': float32 [t]}.

    Raises:
      IndexError: no such example.
      ValueError: its file is damaged.
    """
    if not 0 <= index < len(self):
      raise IndexError(f'There are {len(self)} examples, no {index}.')
    try:
      record = self._source[index]
      return decode(record)
    except (RuntimeError, ValueError, IndexError) as error:
      path = self._paths[bisect.bisect_right(self._ends, index)]
      raise ValueError(_damaged(path, error)) from error


def _damaged(path: str, error: object) -> str:
  return (
    f'{path} cannot be read ({error}): the file is damaged. Delete its folder, '
    'and write the examples again by running their stage again.'
  )


def _encode(example: Mapping[str, np.ndarray]) -> bytes:
  tokens = np.asarray(example['tokens'], '<i4')
  weights = np.asarray(example['weights'], '<f4')
  if not tokens.size or tokens.shape != weights.shape:
    raise ValueError(
      f'An example has tokens {tokens.shape} and weights {weights.shape}: both '
      'must be [t] with t > 0.'
    )
  return tokens.tobytes() + weights.tobytes()


def decode(record: bytes) -> dict[str, np.ndarray]:
  """Returns the example of a record; see `Shards.__getitem__`.

  Raises:
    ValueError: this is no such record.
  """
  if not record or len(record) % 8:
    raise ValueError(f'a record of {len(record)} bytes')
  half = len(record) // 8
  return {
    'tokens': np.frombuffer(record, '<i4', half),
    'weights': np.frombuffer(record, '<f4', half, offset=4 * half),
  }
