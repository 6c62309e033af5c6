"""Records of lists by item id, as a ranker reads them."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from gr2_jax.data import columns as columns_lib
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import fields, generic, raw
from gr2_jax.ranker import ranker, ranking


@dataclasses.dataclass(frozen=True)
class Record:
  """One record as a ranker reads it.

  Attributes:
    given: the record itself.
    history: item indices, oldest first, of the items that are known.
    candidates: item indices [k], of those that are known.
    spelled: id of each candidate to how the record spells it.
    unknown: the other candidates, as spelled, in their incoming order.
    left_out: how many items of the history are not known.
    features: float32 [k, E].
    scores: float32 [k], or None.
    items: N items that the record brings; their indices are those behind the
      catalogue's.
    sids: int32 [N, L], their semantic IDs.
  """

  given: dict
  history: np.ndarray
  candidates: np.ndarray
  spelled: dict[str, Any]
  unknown: list[Any]
  left_out: int
  features: np.ndarray
  scores: np.ndarray | None
  items: tuple[dataset_lib.Item, ...]
  sids: np.ndarray


def read(reranker: ranker.Ranker, record: Any, where: str) -> Record:
  """Reads a record.

  Args:
    reranker: gives the catalogue, and how long lists may be.
    record: an object with `history` and `candidates`, lists of item ids: texts,
      or whole numbers, which are read as texts, as those of data files are.
    where: what to call it in errors.

  Returns:
    The record; the items that it brings have no semantic IDs yet.

  Raises:
    ValueError: what is wrong with it, `where` first.
  """
  if not isinstance(record, dict):
    raise ValueError(
      f'{where}: {fields.shown(record)} is no JSON object; write {{"history": '
      '[item ids], "candidates": [item ids]}.'
    )
  seen, ids = (_read_ids(record, x, where) for x in ('history', 'candidates'))
  twice = fields.repeated(ids)
  if twice is not None:
    raise ValueError(
      f'{where}: the candidate {fields.shown(twice)} stands twice; give it '
      'once.'
    )
  if len(ids) < 2:
    raise ValueError(f'{where}: {len(ids)} candidates; give 2 or more.')
  store = reranker.store
  features, scores = _read_numbers(record, where, store.user_columns)
  index = store.dataset.index
  items = _read_items(record, where, {*seen, *ids} - index.keys())
  own = {item.item_id: len(index) + i for i, item in enumerate(items)}
  find = lambda ids: np.array(
    [index.get(i, own.get(i, -1)) for i in ids], np.int32
  )
  history, candidates = find(seen), find(ids)
  known = candidates >= 0
  spelled = dict(zip(ids, record['candidates'], strict=True))
  ranking.check_length(int(known.sum()), reranker.asking.longest, where)
  return Record(
    given=record,
    history=history[history >= 0],
    candidates=candidates[known],
    spelled=spelled,
    unknown=[spelled[ids[i]] for i in np.flatnonzero(~known)],
    left_out=int((history < 0).sum()),
    features=features[known],
    scores=None if scores is None else scores[known],
    items=items,
    sids=np.zeros((0, store.sids.shape[1]), np.int32),
  )


def _read_ids(record: dict, key: str, where: str) -> list[str]:
  """Returns the item ids of one of a record's lists."""
  ids = record.get(key)
  if not isinstance(ids, list):
    raise ValueError(f'{where}: {key!r} must be a list of item ids.')
  return [fields.identifier(x, f'an item of {key!r}', where) for x in ids]


def _read_numbers(
  record: dict, where: str, columns: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns a record's numbers of its k candidates; float32 [k, E] and [k]."""
  count, given = len(record['candidates']), record.get(columns_lib.KEY)
  rows = columns_lib.rows(given, columns, count, where, 'the run')
  features = np.array(rows, np.float32).reshape(len(columns), count).T
  if record.get('scores') is None:
    return features, None
  scores = columns_lib.floats(record['scores'], count, 'scores', where)
  return features, np.array(scores, np.float32)


def _read_items(
  record: dict, where: str, unknown: Collection[str]
) -> tuple[dataset_lib.Item, ...]:
  """Returns the unknown items that a record describes."""
  given = record.get('items')
  if given is None:
    return ()
  if not isinstance(given, list):
    raise ValueError(
      f'{where}: items is {str(given)[:80]!r}; give a list of objects with '
      'item_id, title and categories.'
    )
  items = raw.unique_items(
    (place, generic.item(row, place))
    for place, row in ((f'{where}: item {i}', x) for i, x in enumerate(given))
  )
  return tuple(item for i, item in items.items() if i in unknown)
