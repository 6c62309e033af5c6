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
    ValueError: another shape, or no numbers (Python objects are not read).
  """
  path = pathlib.Path(path).expanduser()
  try:
    vectors = np.lib.format.open_memmap(path, mode='r')
  except (ValueError, EOFError) as error:
    raise ValueError(
      f'{path} is no array of numbers ({error}): write it by np.save.'
    ) from error
  check(path, vectors)
  return vectors


def check(path: pathlib.Path, vectors: np.ndarray) -> None:
  """Refuses what is no table of vectors.

  Args:
    path: the file, for messages.
    vectors: its vectors.

  Raises:
    ValueError: another shape than [I, W], or no floating-point numbers.
  """
  if vectors.ndim != 2:
    raise ValueError(
      f'{path} holds vectors of shape {vectors.shape}; give one row an item.'
    )
  if not np.issubdtype(vectors.dtype, np.floating):
    raise ValueError(
      f'{path} holds {vectors.dtype}; save the embeddings as float32.'
    )


def check_finite(vectors: np.ndarray) -> None:
  """Looks for values that are not finite, block by block.

  Args:
    vectors: float [I, W].

  Raises:
    ValueError: there is one; names its row.
  """
  for rows in blocks(len(vectors)):
    finite = np.isfinite(vectors[rows]).all(1)
    if not finite.all():
      row = rows.start + int(np.flatnonzero(~finite)[0])
      raise ValueError(
        f'The embedding of item {row} is not finite: compute it again.'
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
    ValueError: all vectors are the same, or a value is not finite.
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
  return Scaling(mean, scale)


def scaled(vectors: np.ndarray) -> Embeddings:
  """Returns vectors [I, W] with their own scaling."""
  return Embeddings(vectors, scaling(vectors))
