"""Reads the data sets that MiniOneRec publishes.

A folder holds `train/X.csv`, `valid/X.csv` and `test/X.csv` (or the files that
they are made of, `X.train.inter` and so on) of one data set, and its items:
`X.item.json` (`item_json.py`), also in `index/`, or `info/X.txt` with semantic
ID, title and item id, tabs between. Of a folder with several data sets, as the
repository has them, `config.data.dir` names one by how its files begin:
`data/Amazon/Office`.

Every row is a position of a user's sequence, in the order of time:

    user_id,history_item_id,item_id
    A0,"[5]",7
    A0,"[5, 7]",2
    A1,"[2, 7]",5
    A0,"[5, 7, 2]",1
    A1,"[2, 7, 5]",1

Other columns (titles, semantic IDs) are ignored. The sequences are put together
from these rows; a time is a place in a sequence. How MiniOneRec splits them is
left to `data.split`.
"""

import glob
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import delimited, fields, item_json, raw, raw_files

_SPLITS = ('train', 'valid', 'test')


class _Row(NamedTuple):
  """One row: what a user had before an item, oldest first, and the item."""

  where: str
  user: str
  history: tuple[str, ...]
  item: str


def paths(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the files of a folder.

  Args:
    folder: where they are; or a folder and, behind it, how their names begin.

  Returns:
    'items', 'train', 'valid' and 'test' -> file.

  Raises:
    FileNotFoundError: not exactly one file of a kind.
  """
  begin = ''
  if not folder.is_dir():
    folder, begin = folder.parent, glob.escape(folder.name)
  found = {'items': _items_file(folder, begin)}
  atomic = bool(raw_files.some(folder, f'{begin}*.train.inter'))
  for name in _SPLITS:
    pattern = f'{begin}*.{name}.inter' if atomic else f'{name}/{begin}*.csv'
    found[name] = raw_files.one(folder, pattern)
  return found


def _items_file(folder: pathlib.Path, begin: str) -> pathlib.Path:
  for pattern in (f'{begin}*.item.json', f'index/{begin}*.item.json'):
    if raw_files.some(folder, pattern):
      return raw_files.one(folder, pattern)
  return raw_files.one(folder, f'info/{begin}*.txt')


def read(folder: pathlib.Path) -> raw.Raw:
  """Reads the files of a folder.

  Args:
    folder: see `paths`.

  Returns:
    Their content, checked.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: bad input, with file, line and remedy.
  """
  files = paths(folder)
  if '.item.json' in files['items'].name:
    items = item_json.read(files['items'])
  else:
    items = raw.unique_items(_info(files['items']))
  rows = itertools.chain(*(_rows(files[name]) for name in _SPLITS))
  return raw.Raw(
    tuple(items.values()), _interactions(rows, items, files['items'].name)
  )


def _info(path: pathlib.Path) -> Iterator[tuple[str, dataset_lib.Item]]:
  for number, line in enumerate(raw_files.lines(path), 1):
    where, found = f'{path}:{number}', line.split('\t')
    if len(found) != 3:
      raise ValueError(
        f'{where}: {len(found)} fields, not 3: {fields.shown(line)}; write '
        'semantic ID, title and item id, with tabs between.'
      )
    item_id = fields.identifier(found[2], 'the item id', where)
    title = fields.unescaped(fields.text(found[1], 'the title', where))
    yield where, dataset_lib.Item(item_id, title, ())


def _rows(path: pathlib.Path) -> Iterator[_Row]:
  if '.inter' in path.name:
    names = ('user_id:token', 'item_id_list:token_seq', 'item_id:token')
    found = delimited.rows(path, names, **delimited.TABS)
  else:
    names = ('user_id', 'history_item_id', 'item_id')
    found = delimited.rows(path, names)
  for where, row in found:
    user, history, item = (row[name] for name in names)
    if '.inter' in path.name:
      history = history.split()
    yield _Row(
      where,
      fields.identifier(user, names[0], where),
      fields.identifiers(history, names[1], where),
      fields.identifier(item, names[2], where),
    )


def _interactions(
  rows: Iterable[_Row], items: dict[str, dataset_lib.Item], file: str
) -> list[raw.Interaction]:
  """Puts sequences together; a row may skip some, which its history tells."""
  sequences: dict[str, list[str]] = {}
  for row in rows:
    sequence = sequences.setdefault(row.user, [])
    shared = _overlap(sequence, row.history)
    if sequence and row.history and not shared:
      raise ValueError(
        f'{row.where}: the history of user {row.user!r} does not continue from '
        'the rows before it; keep all rows, in the order of time.'
      )
    for item in (*row.history[shared:], row.item):
      sequence.append(raw.known_item(item, items, row.where, file))
  return [
    raw.Interaction(user, item, place)
    for user, sequence in sequences.items()
    for place, item in enumerate(sequence)
  ]


def _overlap(sequence: Sequence[str], history: Sequence[str]) -> int:
  """Returns how many items of a history end the sequence, as many as can be."""
  return next(
    (
      size
      for size in range(min(len(sequence), len(history)), 0, -1)
      if list(history[:size]) == sequence[-size:]
    ),
    0,
  )
