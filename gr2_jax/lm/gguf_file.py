"""One GGUF file: its metadata, and its tensors as float32.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Axes are
stored innermost first; here a matrix is [outputs, inputs].
"""

import math
import os
import pathlib
from typing import Any

import gguf
import numpy as np

from gr2_jax import files
from gr2_jax.lm.config import MOST

# The types of tensors that are read.
TYPES = (
  *('F32', 'F16', 'BF16', 'Q8_0', 'Q5_0', 'Q5_1', 'Q4_0', 'Q4_1'),
  *('Q4_K', 'Q5_K', 'Q6_K'),
)
_ROWS = 1024


# What the package raises where a file is damaged.
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, OverflowError)


class _Reader(gguf.GGUFReader):
  """The package's reader, which refuses to read behind the file's end."""

  def _get(self, offset, dtype, count=1, override_order=None):
    end = offset + np.dtype(dtype).itemsize * int(count)
    if end > len(self.data):
      raise IndexError(
        f'what begins at byte {offset} would end at byte {end} of '
        f'{len(self.data)}'
      )
    return super()._get(offset, dtype, count, override_order)


class File:
  """Metadata and tensors of a GGUF file.

  Attributes:
    path: of the file.
    keys: names of the metadata.
    shapes: of the tensors, by name; matrices are [outputs, inputs].
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Reads the header; the tensors stay on disk until they are asked for.

    Args:
      path: of the file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no complete GGUF file of one part and of this machine's
        byte order, or holds a tensor of a type that is not in `TYPES`.
    """
    self.path = pathlib.Path(path)
    files.check_fetched(self.path)
    try:
      # What a damaged header multiplies to may overflow.
      with np.errstate(all='ignore'):
        self._reader = _Reader(self.path)
    except (*_DAMAGE, RecursionError) as error:
      raise ValueError(
        f'{path} is not a GGUF file that can be read, or not whole: {error}. '
        'Fetch it again.'
      ) from error
    if self._reader.byte_order != 'I':
      raise ValueError(
        f'{path} is written in the other byte order: convert it for this '
        'machine.'
      )
    self.keys = tuple(self._reader.fields)
    self._tensors = {t.name: t for t in self._reader.tensors}
    self.shapes = {
      name: tuple(int(n) for n in t.shape[::-1])
      for name, t in self._tensors.items()
    }
    self._last: tuple[str, np.ndarray] | None = None
    parts = self.get('split.count', 1, int)
    if parts > 1:
      raise ValueError(
        f'{path} is one of {parts} parts (split.count): merge them into one '
        'file, with llama-gguf-split --merge.'
      )
    for name, tensor in self._tensors.items():
      if tensor.tensor_type.name not in TYPES:
        raise ValueError(
          f'{path}: tensor {name} is of type {tensor.tensor_type.name}; only '
          f'{list(TYPES)} are read. Use a file quantised to one of them.'
        )

  def get(self, key: str, default: Any = None, kind: Any = object) -> Any:
    """Returns a value of the metadata.

    Args:
      key: its name.
      default: where there is none.
      kind: a class, or a list of the class of its elements.

    Raises:
      ValueError: it cannot be read, or is of another kind.
    """
    if key not in self._reader.fields:
      return default
    try:
      value = self._reader.fields[key].contents()
    except _DAMAGE as error:
      raise ValueError(
        f'{self.path}: {key} in its metadata cannot be read ({error}): fetch '
        'it again.'
      ) from error
    if not _is(value, kind):
      raise ValueError(
        f'{self.path}: {key} in its metadata is {str(value)[:60]!r}, not of '
        f'the type {kind}: fetch it again, or convert the model again.'
      )
    if isinstance(value, float):
      # The shortest number that is this float32: 1e-05, not 9.99999975e-06.
      return float(str(np.float32(value)))
    return value

  def require(self, key: str, kind: Any = object) -> Any:
    """Returns a value as `get` does; a ValueError where there is none."""
    if key not in self._reader.fields:
      raise ValueError(
        f'{self.path} has no {key} in its metadata: convert the model again.'
      )
    return self.get(key, kind=kind)

  def size(self, key: str, default: int | None = None) -> int:
    """Returns a size, from 1 on; without a default it must be there."""
    value = self.get(key, default, int)
    if value is None:
      value = self.require(key, int)
    if value != default and not 0 < value <= MOST:
      raise ValueError(
        f'{self.path}: {key} in its metadata is {value}, not from 1 to {MOST}: '
        'fetch it again.'
      )
    return value

  def number(self, key: str, default: float | None = None) -> float:
    """Returns a positive number; without a default it must be there."""
    value = self.get(key, default, float)
    if value is None:
      value = self.require(key, float)
    if not 0 < value < math.inf:
      raise ValueError(
        f'{self.path}: {key} in its metadata is {value}, not positive: fetch '
        'it again.'
      )
    return value

  def read(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Dequantises a tensor; the last one is kept, and no other.

    Args:
      name: of the tensor.
      rows: int [rows of the tensor], the order in which to take its rows; the
        same for each call with this name.

    Returns:
      float32 of the shape `shapes[name]`; not to be written to.
    """
    if self._last and self._last[0] == name:
      return self._last[1]
    self._last = None
    tensor = self._tensors[name]
    data, kind = tensor.data, tensor.tensor_type
    if len(self.shapes[name]) == 1:
      out = gguf.quants.dequantize(data, kind)
      out = out if rows is None else out[rows]
    else:
      # Some rows at a time: the package's own loop holds a tensor twice.
      out = np.empty(self.shapes[name], np.float32)
      for start in range(0, len(data), _ROWS):
        part = slice(start, start + _ROWS)
        chosen = data[part] if rows is None else data[rows[part]]
        out[part] = gguf.quants.dequantize(chosen, kind)
    self._last = name, out
    return out


def _is(value: Any, kind: Any) -> bool:
  """Returns whether a value is of a kind; see `File.get`."""
  if isinstance(kind, list):
    return isinstance(value, list) and all(_is(x, kind[0]) for x in value)
  return isinstance(value, kind) and (
    kind is not int or not isinstance(value, bool)
  )
