"""Which data set a run is about: where it is, how it is read and filtered."""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gr2_jax import assets
from gr2_jax.data import (
  amazon,
  clean,
  generic,
  minionerec,
  movielens,
  movielens_1m,
  movielens_csv,
  parquet,
  raw,
  raw_files,
  recbole,
  splits,
  synthetic,
  tiger,
)
from gr2_jax.data import dataset as dataset_lib


class _Reader(NamedTuple):
  """How a kind of data is read.

  Attributes:
    paths: finds its files in a folder, by what they hold.
    read: reads them.
  """

  paths: Callable[[pathlib.Path], Mapping[str, pathlib.Path]]
  read: Callable[[pathlib.Path], raw.Raw]


def _amazon(year: int) -> _Reader:
  return _Reader(
    functools.partial(amazon.paths, year=year),
    functools.partial(amazon.read, year=year),
  )


READERS = {
  'ml-100k': _Reader(movielens.paths, movielens.read),
  'ml-1m': _Reader(movielens_1m.paths, movielens_1m.read),
  'ml-csv': _Reader(movielens_csv.paths, movielens_csv.read),
  'amazon2014': _amazon(2014),
  'amazon2018': _amazon(2018),
  'amazon2023': _amazon(2023),
  'recbole': _Reader(recbole.paths, recbole.read),
  'minionerec': _Reader(minionerec.paths, minionerec.read),
  'tiger': _Reader(tiger.paths, tiger.read),
  'generic': _Reader(generic.paths, generic.read),
}
SYNTHETIC = 'synthetic'
KINDS = (*READERS, SYNTHETIC)


@dataclasses.dataclass(frozen=True)
class SourceConfig:
  """The raw data of a run.

  Attributes:
    name: what reports call the data set; letters, digits, `.`, `_` and `-`.
    kind: how it is read: 'generic' (`generic.py`), 'ml-100k' (`movielens.py`),
      'ml-1m' (`movielens_1m.py`), 'ml-csv' (`movielens_csv.py`),
      'amazon2014', 'amazon2018', 'amazon2023' (`amazon.py`), 'recbole',
      'minionerec', 'tiger' (the modules of these names) or 'synthetic'
      (`synthetic.py`).
    dir: folder with the raw files; empty for the asset of that name, which
      only 'ml-100k' has, and for a synthetic world.
    core: users and items need this many interactions each; 5 for Amazon [P].
      0 keeps everything.
    split: what is held out.
    world: what is drawn, for kind 'synthetic'.
    beam: options of Apache Beam, such as '--runner=FlinkRunner ...', to prepare
      data of kind 'generic' by it; empty for this process.
  """

  name: str = ''
  kind: str = 'generic'
  dir: str = ''
  core: int = 5
  split: splits.SplitConfig = splits.SplitConfig()
  world: synthetic.WorldConfig = synthetic.WorldConfig()
  beam: str = ''

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'data.kind is {self.kind!r}; use one of {KINDS}.')
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._-]*', self.name):
      raise ValueError(
        f'data.name is {self.name!r}; use letters, digits, ".", "_" and "-".'
      )
    if self.core < 0:
      raise ValueError(f'data.core is {self.core}; give 0 (no filter) or more.')
    if self.beam and self.kind != 'generic':
      raise ValueError(
        f'data.beam is set, but data.kind is {self.kind!r}: leave the one '
        "empty, or make the other 'generic' (gr2_jax/data/generic.py)."
      )
    if self.kind == SYNTHETIC:
      if self.dir or self.core:
        raise ValueError(
          f'data.dir is {self.dir!r} and data.core {self.core}: a synthetic '
          'world has no files and is used whole; leave them empty and 0.'
        )
      return
    if self.world != synthetic.WorldConfig():
      raise ValueError(
        f'data.world is set, but data.kind is {self.kind!r}: remove the one, '
        f'or make the other {SYNTHETIC!r}.'
      )
    if not self.dir and self.kind not in assets.ASSETS:
      raise ValueError(
        f'data.dir is empty, but data of kind {self.kind!r} does not come with '
        'this package; pass --config.data.dir=FOLDER.'
      )

  @property
  def folder(self) -> pathlib.Path:
    """The folder with the raw files; in `dir`, `~` is the home directory."""
    return pathlib.Path(self.dir).expanduser()


def read(cfg: SourceConfig) -> dataset_lib.Dataset:
  """Reads, checks, filters and orders the raw files.

  Args:
    cfg: where they are and what to keep.

  Returns:
    The data set.

  Raises:
    FileNotFoundError: a missing file or folder.
    ValueError: bad input, with file, line and remedy.
  """
  if cfg.kind == SYNTHETIC:
    return clean.clean(cfg.name, synthetic.read(cfg.world), core=0)
  folder = cfg.folder if cfg.dir else assets.fetch(cfg.kind)
  reader = READERS[cfg.kind]
  found = reader.read(folder)
  if not found.interactions:
    names = [path.name for path in reader.paths(folder).values()]
    raise ValueError(
      f'{folder}: no interactions in {names}; fetch the files again where '
      'their rows are missing.'
    )
  return clean.clean(cfg.name, found, cfg.core)


def fingerprint(cfg: SourceConfig) -> str:
  """Returns a hash of the raw files' names and content; reads nothing else.

  Args:
    cfg: where they are.

  Returns:
    64 hex digits; for an asset those that the package knows. Empty for a
    synthetic world, which its settings determine. For Beam, whose data are too
    many to read here, of names, sizes and times of change.

  Raises:
    FileNotFoundError: a missing file or folder.
    ValueError: a folder, a pipe or a device in the place of a file.
  """
  if cfg.kind == SYNTHETIC:
    return ''
  if not cfg.dir:
    return assets.ASSETS[cfg.kind].sha256
  folder = cfg.folder
  if cfg.beam:
    return _stamps(generic.parts(folder))
  tables = READERS[cfg.kind].paths(folder).values()
  for path in tables:
    if path.suffix != '.parquet':
      raw_files.check_place(path)
  digest = hashlib.sha256()
  for file in parquet.all_parts(tables):
    raw_files.check_place(file)
    digest.update(f'{file.name} {assets.file_hash(file)}\n'.encode())
  return digest.hexdigest()


def _stamps(parts: Mapping[str, list[pathlib.Path]]) -> str:
  digest = hashlib.sha256()
  for path in parquet.all_parts(itertools.chain(*parts.values())):
    stat = path.stat()
    digest.update(f'{path.name} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
  return digest.hexdigest()
