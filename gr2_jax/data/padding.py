"""Ragged rows in arrays of few shapes, each of which is compiled once."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gr2_jax import sharding

# Widths are multiples of it.
_STEP = 32
# How many of them there are; our choice, between padding and compilations.
_STEPS = 4


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
  tokens = np.full((len(prompts), length), pad, np.int32)
  tokens[valid] = [token for prompt in prompts for token in prompt]
  return tokens, valid


def widths(longest: int) -> tuple[int, ...]:
  """Returns the lengths to which prompts are padded, ascending.

  Args:
    longest: tokens of the longest prompt.

  Returns:
    At most four lengths with equal steps between them.
  """
  most = _up(longest, _STEP)
  step = _up(-(-longest // _STEPS), _STEP)
  return (*range(step, most, step), most)


def width(length: int, longest: int) -> int:
  """Returns the length to which a batch of prompts is padded.

  Args:
    length: tokens of its longest one. Above `longest`, as texts of new items
      may make it, the length has a shape of its own.
    longest: tokens of the longest prompt.
  """
  fitting = (each for each in widths(longest) if each >= length)
  return next(fitting, _up(length, _STEP))


def _up(number: int, step: int) -> int:
  return -(-number // step) * step


def batch_size(mesh: jax.sharding.Mesh, rows: int, most: int) -> int:
  """Returns the rows of a batch that few shapes shall hold.

  Args:
    mesh: the mesh.
    rows: how many there are, 1 or more.
    most: how many shall be computed at a time, 1 or more.

  Returns:
    A power of two, rounded up to fit the mesh: enough for all rows, or the
    largest one up to `most`.
  """
  size = min(1 << (rows - 1).bit_length(), 1 << (most.bit_length() - 1))
  parts = sharding.batch_parts(mesh)
  return -(-size // parts) * parts


def fill(tree: Any, rows: int) -> Any:
  """Fills a batch of arrays [n, ...] up with zeros to so many rows."""

  def more(x: np.ndarray) -> np.ndarray:
    filled = np.zeros((rows, *x.shape[1:]), x.dtype)
    filled[: len(x)] = x
    return filled

  return jax.tree.map(more, tree)
