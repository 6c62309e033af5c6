"""Catalogues of items that came after training, with their semantic IDs."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gr2_jax import files
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import generic
from gr2_jax.run import artifacts

_REMEDY = 'make the catalogue by launch.new_items, for this run.'


class Catalogue(NamedTuple):
  """New items.

  Attributes:
    items: N items.
    sids: int32 [N, L], their semantic IDs.
  """

  items: list[dataset_lib.Item]
  sids: np.ndarray


def stamp(sids: np.ndarray) -> str:
  """Names a tokenizer by the semantic IDs that it gave in training.

  Args:
    sids: int32 [I, L].
  """
  content = np.ascontiguousarray(sids, '<i4')
  return hashlib.sha256(content.tobytes()).hexdigest()[:12]


def write(
  path: pathlib.Path | str,
  items: Sequence[dataset_lib.Item],
  sids: np.ndarray,
  tokenizer: str,
) -> None:
  """Writes a catalogue of new items, one JSON object a line.

  Args:
    path: the file; its folder is made if missing.
    items: N items.
    sids: int32 [N, L].
    tokenizer: the `stamp` of the one that gave them.
  """
  path = pathlib.Path(path).expanduser()
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_jsonl(
    path,
    (
      {**dataclasses.asdict(item), 'sid': row, 'tokenizer': tokenizer}
      for item, row in zip(items, np.asarray(sids).tolist(), strict=True)
    ),
  )


def read(
  path: pathlib.Path | str,
  item_ids: Sequence[str],
  sids: np.ndarray,
  codes: int,
) -> Catalogue:
  """Reads a catalogue of new items.

  Args:
    path: what `write` wrote.
    item_ids: the I items of the run.
    sids: int32 [I, L], their semantic IDs.
    codes: C, codes a level.

  Returns:
    The new items.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a line that is none of a catalogue, an item or a semantic ID
      that is there already, or a catalogue of another tokenizer.
  """
  expected, known = stamp(sids), set(item_ids)
  taken = set(map(tuple, np.asarray(sids).tolist()))
  items, found = [], []
  lines = pathlib.Path(path).expanduser().read_bytes().split(b'\n')
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    where = f'{path}:{number}'
    row = _parse(line, where)
    item = generic.item(row, where)
    if row.get('tokenizer') != expected:
      raise ValueError(
        f'{where}: tokenizer is {row.get("tokenizer")!r}, that of the run is '
        f'{expected!r}: {_REMEDY}'
      )
    sid = _sid(row.get('sid'), np.shape(sids)[1], codes, where)
    if item.item_id in known or sid in taken:
      raise ValueError(
        f'{where}: the item {item.item_id!r} or its semantic ID {sid} is '
        f'there already: {_REMEDY}'
      )
    known.add(item.item_id)
    taken.add(sid)
    items.append(item)
    found.append(sid)
  shape = len(items), np.shape(sids)[1]
  return Catalogue(items, np.array(found, np.int32).reshape(shape))


def _parse(line: bytes, where: str) -> Any:
  try:
    return json.loads(line)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{where}: not JSON ({error}): {_REMEDY}') from error


def _sid(value: Any, levels: int, codes: int, where: str) -> tuple[int, ...]:
  """Returns a semantic ID."""
  sound = isinstance(value, list) and len(value) == levels
  if not sound or not all(type(x) is int and 0 <= x < codes for x in value):
    raise ValueError(
      f'{where}: sid is {value!r}, not {levels} codes below {codes}: {_REMEDY}'
    )
  return tuple(value)


def read_for(path: pathlib.Path | str, store: artifacts.Artifacts) -> Catalogue:
  """Reads a catalogue of new items for a run; see `read`.

  Args:
    path: what `write` wrote.
    store: of the run.
  """
  known = list(store.dataset.index)
  return read(path, known, store.sids, store.vocab.codes)
