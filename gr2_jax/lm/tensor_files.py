"""Files of safetensors: one, or all that hold a Hugging Face model."""

import contextlib
import pathlib
from typing import Any

import numpy as np
import safetensors
from absl import logging

from gr2_jax import files

INDEX = 'model.safetensors.index.json'
WHOLE = 'model.safetensors'
# The types that are read: none is quantised.
TYPES = ('F32', 'F16', 'BF16', 'F64')


def open_one(path: pathlib.Path) -> Any:
  """Opens a safetensors file; its tensors stay on disk until they are read.

  Args:
    path: the file.

  Returns:
    What `safetensors.safe_open` gives, a context of NumPy arrays.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is a pointer of git-lfs, or not whole.
  """
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} is missing: fetch the model with its weights as safetensors'
      f'{_beside(path.parent)}.'
    )
  files.check_fetched(path)
  try:
    return safetensors.safe_open(path, 'numpy')
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path} is not a safetensors file that can be read, or not whole '
      f'({path.stat().st_size} bytes): {error}. Fetch it again.'
    ) from error


def open_all(
  directory: pathlib.Path, stack: contextlib.ExitStack
) -> dict[str, Any]:
  """Opens the files of a Hugging Face model.

  Args:
    directory: with `model.safetensors`, or with an index and its files. Where
      both are there, the former is read, as transformers does, with a warning.
    stack: closes the files.

  Returns:
    Name of a tensor -> its open file.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file cannot be read, or they do not belong together.
  """
  index = directory / INDEX
  wanted = _read_index(index) if index.is_file() else {}
  names = sorted(set(wanted.values()))
  if names != [WHOLE] and (not names or (directory / WHOLE).is_file()):
    if names:
      logging.warning(
        '%s holds %s and %s with other files: the former is read, as '
        'transformers does. Remove what is not of this model.',
        directory,
        WHOLE,
        INDEX,
      )
    names, wanted = [WHOLE], {}
  found, places = {}, {}
  for name in names:
    opened = stack.enter_context(open_one(directory / name))
    for key in opened.keys():
      if key in found:
        raise ValueError(
          f'{directory}: tensor {key!r} is in {places[key]} and in {name}: '
          'files of two models lie there, fetch the model into a new directory.'
        )
      found[key], places[key] = opened, name
  for key, name in wanted.items():
    if places.get(key) != name:
      raise ValueError(
        f'{index} has the tensor {key!r} in {name}, but it is not in there: '
        'files of two models lie there, fetch the model into a new directory.'
      )
  return found


def finite(x: np.ndarray, name: str, path: pathlib.Path) -> np.ndarray:
  """Refuses a tensor with NaN or infinity, of which a model writes noise.

  Args:
    x: a tensor, or a part of one.
    name: of the tensor.
    path: of the checkpoint.

  Returns:
    `x`.

  Raises:
    ValueError: a number is not finite.
  """
  wrong = x.size - int(np.count_nonzero(np.isfinite(x)))
  if wrong:
    raise ValueError(
      f'{path}: {wrong} of {x.size} numbers of the tensor {name!r} are not '
      'finite: its training or conversion failed, or the file is damaged. Take '
      'another checkpoint of it, or fetch it again.'
    )
  return x


def _read_index(path: pathlib.Path) -> dict[str, str]:
  """Reads which file each tensor is in."""
  weights = files.read_object(path).get('weight_map')
  if not isinstance(weights, dict) or not weights:
    raise ValueError(
      f'{path} has no weight_map (tensor -> file): fetch it again, or remove '
      f'it where {WHOLE} is the whole model.'
    )
  for name in weights.values():
    if not isinstance(name, str) or not files.is_plain_name(name):
      raise ValueError(
        f'{path} names the file {name!r}: all files of a model '
        'lie in its directory. Fetch the model from a source you trust.'
      )
  return weights


def _beside(directory: pathlib.Path) -> str:
  """Describes what is there in place of weights, as the end of a sentence."""
  if (directory / 'adapter_config.json').exists():
    return ' (there is an adapter: merge it into its base model, and save that)'
  if any(directory.glob('*.bin')) or any(directory.glob('*.pth')):
    return ' (there are pickled weights, which can run code: convert them)'
  return ''
