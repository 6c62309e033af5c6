"""Semantic IDs for items that were not there when the tokenizer was trained.

The IDs that exist stay as they are. A new item takes the quantiser's codes if
they are free, else an unused last code drawn by the item's own content, else
the free SID that shares the longest prefix. New items are served in the order
of their content, so that the result depends on what they are and on the
catalogue, never on the order in which they come. All of it is our choice.

Letters: I items of the catalogue, N new ones, L levels, C codes a level.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gr2_jax.sid import assign


def content_keys(texts: Sequence[str]) -> np.ndarray:
  """Hashes item texts, uint64 [N]."""
  digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
  return np.array([int.from_bytes(d, 'little') for d in digests], np.uint64)


def extend(
  sids: np.ndarray,
  nearest: np.ndarray,
  keys: np.ndarray,
  codes: int,
  last_level: str = 'random',
) -> tuple[np.ndarray, np.ndarray]:
  """Gives new items SIDs that are free.

  Args:
    sids: int [I, L], the catalogue's, all distinct; I may be 0.
    nearest: int [N, L], what the quantiser says about the new items.
    keys: uint64 [N], hashes of the items' content; of equal ones the first
      goes first.
    codes: C.
    last_level: 'random' draws an unused last code for a colliding item [P];
      'nearest' goes to the free SID of the longest prefix at once.

  Returns:
    (raw, sids), int32 [N, L] each: before and after conflict resolution, as
    `assign.assign` returns them.

  Raises:
    ValueError: more items than SIDs, or another way to choose the last level.
  """
  if last_level not in ('random', 'nearest'):
    raise ValueError(
      f'last_level = {last_level!r}: new items are assigned one by one, so it '
      "must be 'random' or 'nearest'."
    )
  nearest = np.asarray(nearest, np.int32)
  total, levels = len(sids) + len(nearest), nearest.shape[1]
  if total > codes**levels:
    raise ValueError(
      f'{total} items do not fit {codes}^{levels} SIDs: train a tokenizer '
      'with more codes or levels.'
    )
  taken = {tuple(row) for row in np.asarray(sids).tolist()}
  used = defaultdict(set)
  for row in taken:
    used[row[:-1]].add(row[-1])
  raw, new = nearest.copy(), nearest.copy()
  full: set[tuple[int, ...]] = set()
  for item in np.argsort(keys, kind='stable').tolist():
    row = tuple(nearest[item].tolist())
    if row in taken and last_level == 'random':
      unused = np.setdiff1d(np.arange(codes), list(used[row[:-1]]))
      if len(unused):
        draw = np.random.default_rng(int(keys[item]))
        row = (*row[:-1], int(draw.choice(unused)))
    raw[item] = row
    if row in taken:
      row = assign.free_sid(row, codes, taken, full)
    taken.add(row)
    used[row[:-1]].add(row[-1])
    new[item] = row
  return raw, new
