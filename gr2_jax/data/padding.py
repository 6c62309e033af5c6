"""Ragged rows in arrays of few shapes, each of which is compiled once."""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gr2_jax import sharding

# Lengths of prompts are multiples of it; our choice, between padding and
# compilations.
STEP = 32
# How many of them `widths` gives; our choice likewise.
_STEPS = 4

Shape = tuple[int, ...]


def round_up(number: int, multiple: int = STEP) -> int:
  """Returns the least multiple of `multiple` that is not below `number`."""
  return -(-number // multiple) * multiple


def stack(
  rows: Sequence[Sequence[int]], length: int, filler: int
) -> np.ndarray:
  """Pads rows on the right to one length.

  Args:
    rows: n rows of integers, none longer than `length`.
    length: P.
    filler: what they are filled up with.

  Returns:
    int32 [n, P].
  """
  stacked = np.full((len(rows), length), filler, np.int32)
  for target, row in zip(stacked, rows, strict=True):
    target[: len(row)] = row
  return stacked


def batch(
  prompts: Sequence[Sequence[int]], length: int, pad: int
) -> tuple[np.ndarray, np.ndarray]:
  """Pads prompts on the right to one shape.

  Args:
    prompts: Q lists of token ids.
    length: P.
    pad: id to fill up with.

  Returns:
    (tokens int32 [Q, P], valid bool [Q, P]).

  Raises:
    ValueError: a prompt is longer than P.
  """
  lengths = np.array([len(prompt) for prompt in prompts], np.int64)
  if lengths.size and lengths.max() > length:
    raise ValueError(
      f'Prompt {int(lengths.argmax())} has {lengths.max()} tokens, more than '
      f'the {length} of the batch: raise the length or lower '
      'text.prompt.max_tokens.'
    )
  valid = np.arange(length)[None, :] < lengths[:, None]
  return stack(prompts, length, pad), valid


def by_shape(
  shapes: Sequence[Shape], size: int | Callable[[Shape], int], worth: int = 0
) -> Iterator[tuple[Shape, np.ndarray]]:
  """Puts rows of one padded shape into batches.

  Args:
    shapes: the shape that each row is padded to.
    size: rows of a batch, or what gives them for its shape.
    worth: batches that make a shape worth a compilation of its own. Rows of a
      shape with fewer join the next one; 0 keeps all shapes apart.

  Yields:
    (shape, int [n] rows), at most `size` of them, shapes in rising order.
  """
  groups = collections.defaultdict(list)
  for row, own in enumerate(shapes):
    groups[own].append(row)
  rows, shape = [], ()
  for place, (own, members) in enumerate(sorted(groups.items()), 1):
    shape = tuple(map(max, shape, own)) if rows else own
    rows = rows + members
    most = size(shape) if callable(size) else size
    if len(rows) < worth * most and place < len(groups):
      continue
    for start in range(0, len(rows), most):
      yield shape, np.array(rows[start : start + most])
    rows = []


def by_length(lengths: Sequence[int], size: int) -> Iterator[np.ndarray]:
  """Puts rows of similar length into batches, all but the last one full.

  Args:
    lengths: of each row.
    size: rows of a batch.

  Yields:
    int [n], rows, from the shortest on.
  """
  order = np.argsort(lengths, kind='stable')
  for start in range(0, len(order), size):
    yield order[start : start + size]


def widths(longest: int) -> tuple[int, ...]:
  """Returns the lengths to which prompts are padded, ascending.

  Args:
    longest: tokens of the longest prompt.

  Returns:
    At most four lengths with equal steps between them.
  """
  most = round_up(longest)
  step = round_up(-(-longest // _STEPS))
  return (*range(step, most, step), most)


def width(length: int, longest: int) -> int:
  """Returns the length to which a batch of prompts is padded.

  Args:
    length: tokens of its longest one. Above `longest`, as texts of new items
      may make it, the length has a shape of its own.
    longest: tokens of the longest prompt.
  """
  fitting = (each for each in widths(longest) if each >= length)
  return next(fitting, round_up(length))


def batch_size(mesh: jax.sharding.Mesh, rows: int, most: int) -> int:
  """Returns the rows of a batch, so that few shapes occur.

  Args:
    mesh: the mesh.
    rows: how many there are, 1 or more.
    most: the most that are computed at a time, 1 or more.

  Returns:
    A power of two, rounded up to fit the mesh: enough for all rows, or the
    largest one up to `most`.
  """
  size = min(1 << (rows - 1).bit_length(), 1 << (most.bit_length() - 1))
  return round_up(size, sharding.batch_parts(mesh))


def fill(tree: Any, rows: int) -> Any:
  """Fills a batch of arrays [n, ...] up with zeros to a number of rows."""

  def more(x: np.ndarray) -> np.ndarray:
    filled = np.zeros((rows, *x.shape[1:]), x.dtype)
    filled[: len(x)] = x
    return filled

  return jax.tree.map(more, tree)
