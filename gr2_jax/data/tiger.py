"""Reads the layouts in which data for TIGER are published.

Of P5, which RQ-VAE-Recommender and others use: `sequential_data.txt` has a user
a line, the user and the items, oldest first,

    1 1 2 3 4 5
    2 6 2 7
    3 8 1 9 4
    4 5 6
    5 2 9 1

`datamaps.json` tells their ids, `{"id2item": {"1": "B1"}}` or the reverse,
`{"item2id": {"B1": "1"}}`, and `meta.json` is Amazon's metadata (`amazon.py`).

Of LC-Rec and LETTER: `X.inter.json` has the items by user, and `X.item.json`
the items (`item_json.py`):

    {"0": [0, 1, 2], "1": [3, 4], "2": [1, 3, 0], "3": [2, 4], "4": [4, 0]}

A time is a place in a sequence.
"""

import pathlib
from collections.abc import Iterator

from gr2_jax.data import amazon, fields, item_json, raw, raw_files

_SEQUENCES = 'sequential_data.txt'


def paths(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the files of a folder.

  Args:
    folder: where they are.

  Returns:
    'sequences', 'maps' and 'meta', or 'inter' and 'items' -> file.

  Raises:
    FileNotFoundError: not exactly one file of a kind.
  """
  if raw_files.some(folder, '*.inter.json'):
    return {
      'inter': raw_files.one(folder, '*.inter.json'),
      'items': raw_files.one(folder, '*.item.json'),
    }
  return {
    'sequences': raw_files.one(folder, _SEQUENCES),
    'maps': raw_files.one(folder, 'datamaps.json'),
    'meta': raw_files.one(folder, 'meta*.json'),
  }


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
  if 'inter' in files:
    items, source = item_json.read(files['items']), files['items'].name
    found = _inter(files['inter'])
  else:
    names, source = _names(files['maps']), files['meta'].name
    items = amazon.items_of(files['meta'], set(names.values()))
    found = _sequences(files['sequences'], names)
  interactions = [
    raw.Interaction(user, raw.known_item(item, items, where, source), place)
    for where, user, sequence in found
    for place, item in enumerate(sequence)
  ]
  return raw.Raw(tuple(items.values()), interactions)


def _inter(
  path: pathlib.Path,
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
  for where, user, items in raw_files.json_entries(path):
    user = fields.identifier(user, 'a user id', where)
    name = f'the items of user {user!r}'
    yield where, user, fields.identifiers(items, name, where)


def _sequences(
  path: pathlib.Path, names: dict[str, str]
) -> Iterator[tuple[str, str, list[str]]]:
  users = set()
  for number, line in enumerate(raw_files.lines(path), 1):
    where, (user, *items) = f'{path}:{number}', line.split() or ['']
    if not line.strip():
      continue
    if user in users or not items:
      raise ValueError(
        f'{where}: user {user!r} stands there already, or has no items; give '
        'each user one line, the user and the items.'
      )
    users.add(user)
    unknown = next((item for item in items if item not in names), None)
    if unknown is not None:
      raise ValueError(
        f'{where}: the item {unknown!r} is not in datamaps.json; take both '
        'files from the same archive.'
      )
    yield (
      where,
      fields.identifier(user, 'the user', where),
      [names[item] for item in items],
    )


def _names(path: pathlib.Path) -> dict[str, str]:
  """Returns the items' own ids by those of the sequences."""
  maps = {key: (where, x) for where, key, x in raw_files.json_entries(path)}
  name = 'id2item' if 'id2item' in maps else 'item2id'
  where, found = maps.get(name, (f'{path}:1', None))
  if not isinstance(found, dict):
    raise ValueError(
      f'{where}: no object item2id or id2item; take datamaps.json from the '
      'archive of the sequences.'
    )
  pairs = [
    (
      fields.identifier(key, name, where),
      fields.identifier(value, name, where),
    )
    for key, value in found.items()
  ]
  if name == 'item2id':
    pairs = [(value, key) for key, value in pairs]
  names = dict(pairs)
  if len(names) < len(pairs):
    raise ValueError(f'{where}: {name} gives two items one id; fix it.')
  return names
