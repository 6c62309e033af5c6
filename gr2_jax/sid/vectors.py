"""Item embeddings as the tokenizer reads them: centred, scaled, from disk.

Letters: I items, W width of the embedding.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Rows read at a time: it bounds the memory, not the result.
ROWS = 8192
# Between them float32 holds all that is made of vectors.
_SMALLEST, LARGEST = 1e-30, 1e30


class Scaling(NamedTuple):
  """How embeddings are centred and scaled.

  Attributes:
    mean: float64 [W].
    scale: root of the mean square of the centred components.
  """

  mean: np.ndarray
  scale: float

  def apply(self, vectors: np.ndarray) -> np.ndarray:
    """Scales vectors [I, W] to float32 [I, W]."""
    scaled = np.asarray(vectors, np.float32) - self.mean.astype(np.float32)
    scaled /= np.float32(self.scale)
    return scaled


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
  """Vectors that are scaled when they are read.

  Attributes:
    raw: float [I, W], an array, a memory-mapped file, or rows of one
      (`vector_files.Rows`).
    scaling: how they are scaled.
  """

  raw: np.ndarray
  scaling: Scaling

  @property
  def shape(self) -> tuple[int, int]:
    """(I, W)."""
    return self.raw.shape

  def __len__(self) -> int:
    """Returns I."""
    return len(self.raw)

  def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
    """Returns float32 [rows, W], scaled.

    Args:
      rows: a slice, or int [n].
    """
    return self.scaling.apply(self.raw[rows])


def blocks(items: int, rows: int = ROWS) -> Iterator[slice]:
  """Yields the slices that cover `items` rows, `rows` at a time."""
  for start in range(0, items, rows):
    yield slice(start, min(start + rows, items))


def read(path: str | pathlib.Path) -> np.ndarray:
  """Maps precomputed vectors into memory.

  Args:
    path: a `.npy`, float [I, W].

  Returns:
    float [I, W], read from disk as it is used.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: another shape, or no numbers (Python objects are not read).
  """
  path = pathlib.Path(path).expanduser()
  check_exists(path)
  try:
    vectors = np.lib.format.open_memmap(path, mode='r')
  except Exception as error:  # NumPy parses the header as Python.
    raise ValueError(
      f'{path} is no array of numbers ({error}): write it by np.save.'
    ) from error
  check(path, vectors)
  return vectors


def check_exists(path: pathlib.Path) -> None:
  """Refuses a path where no file is.

  Args:
    path: of a file of vectors.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: a folder, a pipe or a device.
  """
  if not path.exists():
    raise FileNotFoundError(
      f'{path}: no such file of item vectors; check sid.embeddings.'
    )
  if not path.is_file():
    raise ValueError(
      f'{path}: a folder, a pipe or a device, where a file of item vectors is '
      'read; write them into one file.'
    )


def check(path: pathlib.Path, vectors: np.ndarray) -> None:
  """Refuses what is no table of vectors.

  Args:
    path: the file, for messages.
    vectors: its vectors.

  Raises:
    ValueError: another shape than [I, W], or no floating-point numbers.
  """
  if vectors.ndim != 2 or not vectors.shape[1]:
    raise ValueError(
      f'{path} holds vectors of shape {vectors.shape}; give one row an item.'
    )
  if not np.issubdtype(vectors.dtype, np.floating):
    raise ValueError(
      f'{path} holds {vectors.dtype}; save the embeddings as float32.'
    )


def first_wrong(vectors: np.ndarray) -> int | None:
  """Looks for numbers that are not finite or beyond `LARGEST`.

  Args:
    vectors: float [I, W]; read block by block.

  Returns:
    The first row with one; None if there is none.
  """
  for rows in blocks(len(vectors)):
    # Of numbers that are none every comparison fails.
    right = (np.abs(vectors[rows]) < np.float64(LARGEST)).all(1)
    if not right.all():
      return rows.start + int(np.flatnonzero(~right)[0])
  return None


def check_finite(vectors: np.ndarray) -> None:
  """Refuses what `first_wrong` finds.

  Args:
    vectors: float [I, W].

  Raises:
    ValueError: there is such a number; names its row.
  """
  row = first_wrong(vectors)
  if row is not None:
    raise ValueError(
      f'The embedding of item {row} is not finite, or beyond {LARGEST:g}: '
      'compute it again.'
    )


def scaling(vectors: np.ndarray) -> Scaling:
  """Finds what brings vectors to mean 0 and a mean square of one.

  So learning rates and errors mean the same for every encoder: a mean squared
  error of 1 is what the mean vector alone reaches. Our choice.

  Args:
    vectors: float [I, W]; read twice, block by block.

  Returns:
    The scaling.

  Raises:
    ValueError: all vectors are the same, or differ by less than float32 holds;
      or a value is not finite.
  """
  check_finite(vectors)
  items, width = vectors.shape
  mean, squares = np.zeros(width), 0.0
  for rows in blocks(items):
    mean += vectors[rows].sum(0, dtype=np.float64)
  mean /= items
  for rows in blocks(items):
    squares += float(((vectors[rows] - mean) ** 2).sum())
  scale = float(np.sqrt(squares / (items * width)))
  if scale == 0:
    raise ValueError(
      'All item embeddings are the same vector: SIDs cannot tell items apart. '
      'Check the item texts or sid.embeddings.'
    )
  if scale < _SMALLEST:
    raise ValueError(
      f'The item embeddings differ by {scale:g} alone, which float32 does not '
      'hold: multiply them by a constant.'
    )
  return Scaling(mean, scale)


def scaled(vectors: np.ndarray) -> Embeddings:
  """Returns vectors [I, W] with their own scaling."""
  return Embeddings(vectors, scaling(vectors))
