"""The data set of a run, as the data stage wrote it.

Apart from `data/builder.py`, so that what reads no data set does not import
TFDS.
"""

import pathlib

from gr2_jax.data import dataset as dataset_lib


def load(directory: pathlib.Path) -> dataset_lib.Dataset:
  """Reads the data set that the data stage wrote.

  Args:
    directory: the stage's directory, `workdir/data`.

  Returns:
    The data set.

  Raises:
    FileNotFoundError: there is none in the directory.
    ValueError: its content does not have the hash that it was written with.
  """
  from gr2_jax.data import builder

  return builder.read(pathlib.Path(directory))
