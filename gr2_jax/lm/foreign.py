"""Checkpoints of others: where they lie, and what tells them apart.

A setting names a Hugging Face directory, a GGUF file, or an asset that holds
one.
"""

import hashlib
import pathlib

from absl import logging

from gr2_jax import assets

# Of the rows of a table, how many have an id at least: our choice.
_FEWEST = 0.8


def find(name: str, setting: str) -> pathlib.Path:
  """Returns the path of a checkpoint.

  Args:
    name: a directory, a file or an asset, which is fetched if need be.
    setting: what the user calls it, for the error.

  Returns:
    A directory, or a file.

  Raises:
    ValueError: an asset without a language model.
    FileNotFoundError: no such file or directory.
  """
  if name in assets.ASSETS:
    folder = assets.fetch(name)
    files = sorted(folder.glob('*.gguf'))
    if len(files) != 1:
      raise ValueError(f'The asset {name!r} holds no language model.')
    return files[0]
  path = pathlib.Path(name).expanduser()
  if not name or not path.exists():
    raise FileNotFoundError(
      f'{setting} = {name!r} is no directory, file or asset '
      f'({sorted(assets.ASSETS)}): give the directory of a Hugging Face model '
      'or a GGUF file.'
    )
  return path


def fingerprint(path: pathlib.Path) -> str:
  """Identifies a checkpoint: names and sizes of its files, and its JSON."""
  found = hashlib.sha256()
  for file in [path] if path.is_file() else sorted(path.iterdir()):
    found.update(f'{file.name} {file.stat().st_size}\n'.encode())
    if file.suffix == '.json':
      found.update(file.read_bytes())
  return found.hexdigest()


def check_rows(path: pathlib.Path, ids: int, rows: int) -> None:
  """Refuses a tokenizer with ids beyond the embedding table of its model.

  It warns of one that is far smaller: tables are padded by a few rows, and it
  may be another model's.

  Args:
    path: of the checkpoint.
    ids: number of ids, one more than the highest.
    rows: V, of the table.

  Raises:
    ValueError: an id has no row.
  """
  if ids > rows:
    raise ValueError(
      f'{path}: the tokenizer has ids up to {ids - 1}, but the embedding table '
      f'has only {rows} rows: tokens were added and the table was not resized. '
      'Resize it (model.resize_token_embeddings(len(tokenizer)) in '
      'transformers) and save the model again, or fetch the tokenizer that '
      'belongs to it.'
    )
  if ids < _FEWEST * rows:
    logging.warning(
      '%s: the tokenizer has %d ids for the %d rows of the embedding table: if '
      'it is the tokenizer of another model, every text is read wrongly. '
      'Compare it with the one that was published with the weights.',
      *(path, ids, rows),
    )
