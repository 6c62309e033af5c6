"""Files of item vectors that a user brings: a row belongs to an item by its id.

| file | contents |
|---|---|
| `.npz` | arrays `ids` [N], texts or integers, and `vectors` float [N, W] |
| `.parquet` | columns `item_id` and `vector`, a list of W numbers each |
| `.npy` | float [N, W]; the ids stand in `NAME.ids` beside it, one a line |

A `.npy` without ids has a row for each item of the items file, in the order of
that file. Vectors of items that the data set does not have are not used. A
`.npy` is read from disk as it is used, the others lie in memory.

Letters: N rows, I items of the data set, W width.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from absl import logging

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import fields, raw_files
from gr2_jax.sid import vectors

_ENDINGS = ('.npz', '.parquet', '.npy')


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """Rows of an array in another order, read when they are asked for.

  Attributes:
    raw: float [N, W], in memory or on disk.
    order: int64 [I], the row of each item.
  """

  raw: np.ndarray
  order: np.ndarray

  @property
  def shape(self) -> tuple[int, int]:
    """(I, W)."""
    return len(self.order), self.raw.shape[1]

  def __len__(self) -> int:
    """Returns I."""
    return len(self.order)

  def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
    """Returns float [rows, W]."""
    return self.raw[self.order[rows]]


def ids_path(path: pathlib.Path) -> pathlib.Path:
  """Returns where the ids of a `.npy` stand."""
  return path.with_suffix('.ids')


def fingerprint(path: pathlib.Path) -> str:
  """Returns the hash of a file of vectors and of the ids beside it.

  Args:
    path: the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a folder.
  """
  vectors.check_exists(path)
  digest = hashlib.sha256()
  given = [path]
  if path.suffix == '.npy' and ids_path(path).exists():
    given.append(ids_path(path))
  for file in given:
    with file.open('rb') as stream:
      while block := stream.read(2**20):
        digest.update(block)
  return digest.hexdigest()


def read(
  path: str | pathlib.Path, dataset: dataset_lib.Dataset
) -> np.ndarray | Rows:
  """Reads the vectors of a data set's items.

  Args:
    path: the file.
    dataset: gives the items, and for a `.npy` without ids where they stand in
      the items file.

  Returns:
    float [I, W], in the order of `dataset.items`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: another format; no numbers, or such as are not finite; ids that
      are too few, twice there or missing; or rows without ids, of another
      number than the items file has.
  """
  path = pathlib.Path(path).expanduser()
  ids, found = _read(path)
  if ids is None:
    order = _by_place(path, len(found), dataset)
  else:
    order = _by_id(path, ids, len(found), dataset)
  in_order = np.array_equal(order, np.arange(len(found)))
  rows = found if in_order else Rows(found, order)
  wrong = vectors.first_wrong(rows)
  if wrong is not None:
    raise ValueError(
      f'{path}: the vector of the item {dataset.items[wrong].item_id!r} holds '
      f'a number that is not finite, or beyond {vectors.LARGEST:g}: compute it '
      'again.'
    )
  return rows


def _read(path: pathlib.Path) -> tuple[list[str] | None, np.ndarray]:
  """Returns ids, if there are any, and vectors as they stand in the file."""
  if path.suffix in _ENDINGS:
    vectors.check_exists(path)
  if path.suffix == '.npz':
    ids, found = _read_npz(path)
  elif path.suffix == '.parquet':
    ids, found = _read_parquet(path)
  elif path.suffix == '.npy':
    beside = ids_path(path)
    ids = list(raw_files.lines(beside)) if beside.exists() else None
    return ids, vectors.read(path)
  else:
    raise ValueError(
      f'{path}: item vectors are read from {_ENDINGS}; write one of these.'
    )
  vectors.check(path, found)
  return ids, found


def _read_npz(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
  try:
    # Opened here, since NumPy leaves what it cannot read open.
    with (
      path.open('rb') as file,
      np.load(file, allow_pickle=False) as arrays,
    ):
      ids, found = arrays['ids'], arrays['vectors']
  except Exception as error:  # NumPy, zipfile and codecs raise many classes.
    raise ValueError(
      f'{path} is no archive of ids and numbers ({error}): write it by '
      'np.savez(path, ids=ids, vectors=vectors), ids as an array of texts.'
    ) from error
  if ids.ndim != 1 or ids.dtype.kind not in 'Uiu':
    raise ValueError(
      f'{path}: ids are {ids.dtype} of shape {ids.shape}; give an array of '
      'texts or of whole numbers, one for each row of vectors.'
    )
  return [str(item_id) for item_id in ids.tolist()], found


def _read_parquet(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
  columns = ['item_id', 'vector']
  try:
    table = pyarrow.parquet.read_table(path, columns=columns)
    ids = table.column('item_id').to_pylist()
    found = table.column('vector').combine_chunks()
    lengths = found.value_lengths().to_numpy(zero_copy_only=False)
    flat = found.flatten().to_numpy(zero_copy_only=False)
  except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
    raise ValueError(
      f'{path} is no Parquet file with the columns {columns}, a list of '
      f'numbers in each vector ({error}): write it so.'
    ) from error
  width = len(flat) // max(len(ids), 1)
  if not np.all(lengths == width):
    raise ValueError(
      f'{path}: vectors are missing or of different lengths, such as '
      f'{sorted(set(lengths.tolist()))[:3]}; give all items vectors of one '
      'length.'
    )
  named = [
    fields.identifier(item_id, 'item_id', f'{path}:{row}')
    for row, item_id in enumerate(ids, 1)
  ]
  return named, flat.reshape(len(ids), width)


def _by_place(
  path: pathlib.Path, count: int, dataset: dataset_lib.Dataset
) -> np.ndarray:
  """Returns the row of each item, where rows have no ids."""
  remedy = f'write the item ids to {ids_path(path).name}, one a line'
  rows = dataset.rows
  if rows is None:
    rows = np.arange(dataset.num_items)
  if len(rows) != dataset.num_items:
    raise ValueError(
      f'{path} has no ids, and this run does not know the order of the items '
      f'file: {remedy}.'
    )
  if count != dataset.num_rows:
    raise ValueError(
      f'{path} has {count} rows and no ids, so it needs one for each of the '
      f'{dataset.num_rows} items of the items file, in its order; or {remedy}.'
    )
  logging.info(
    '%s has no ids: its %d rows are taken in the order of the items file.',
    path,
    count,
  )
  return rows


def _by_id(
  path: pathlib.Path,
  ids: Sequence[str],
  count: int,
  dataset: dataset_lib.Dataset,
) -> np.ndarray:
  """Returns the row of each item, by the ids of the rows."""
  if len(ids) != count:
    raise ValueError(
      f'{path}: {len(ids)} ids for {count} vectors; give one id a vector.'
    )
  row_of = {item_id: row for row, item_id in enumerate(ids)}
  if len(row_of) < count:
    seen: set[str] = set()
    twice = next(i for i in ids if i in seen or seen.add(i))
    raise ValueError(
      f'{path}: the id {twice!r} stands there twice; give each item one vector.'
    )
  wanted = [item.item_id for item in dataset.items]
  missing = [item_id for item_id in wanted if item_id not in row_of]
  if missing:
    raise ValueError(
      f'{path} has no vector of {len(missing)} of the {len(wanted)} items, '
      f'such as {missing[:3]}: add them, under the ids of the items file.'
    )
  unused = count - len(wanted)
  logging.info(
    '%s: vectors of %d items by their ids%s.',
    path,
    len(wanted),
    f'; {unused} of other items are not used' if unused else '',
  )
  return np.array([row_of[item_id] for item_id in wanted], np.int64)
