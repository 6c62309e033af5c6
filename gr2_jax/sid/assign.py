"""From the codes of the quantiser to one distinct semantic ID for each item.

Letters: I items, L levels, C codes a level.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from gr2_jax.sid import sinkhorn


def uniqueness(sids: np.ndarray) -> float:
  """Returns the number of distinct SIDs over the number of items, in 0..1.

  Args:
    sids: int [I, L].
  """
  sids = np.asarray(sids)
  return len(np.unique(sids, axis=0)) / len(sids)


def collisions(sids: np.ndarray) -> int:
  """Returns how many items carry an SID that an earlier item has.

  Args:
    sids: int [I, L].
  """
  sids = np.asarray(sids)
  return len(sids) - len(np.unique(sids, axis=0))


def random_last_level(sids: np.ndarray, codes: int, seed: int) -> np.ndarray:
  """Parts colliding items by a random unused last code.

  GR2's technique 5 [P]: the last level is drawn at random among unused codes.
  Which item of a collision keeps the quantiser's code is our choice: the
  first; "unused" means unused under the item's first L - 1 codes.

  Args:
    sids: int [I, L], nearest codes.
    codes: C.
    seed: of the draws; the result is a function of the arguments.

  Returns:
    int32 [I, L]. Items still collide only where more than C items share their
    first L - 1 codes.
  """
  sids = np.array(sids, np.int32)
  rng = np.random.default_rng(seed)
  groups = defaultdict(list)
  for item, row in enumerate(sids.tolist()):
    groups[tuple(row[:-1])].append(item)
  for items in groups.values():
    last = sids[items, -1]
    _, first = np.unique(last, return_index=True)
    if len(first) == len(items):
      continue
    rest = np.setdiff1d(np.arange(len(items)), first)
    unused = rng.permutation(np.setdiff1d(np.arange(codes), last))
    rest = rest[: len(unused)]
    sids[np.asarray(items)[rest], -1] = unused[: len(rest)]
  return sids


def resolve_conflicts(sids: np.ndarray, codes: int) -> np.ndarray:
  """Gives every item a distinct SID, deterministically.

  The first item of a collision keeps the SID; each later one, in the order of
  items, takes the free SID that keeps the longest prefix, counting upwards
  (cyclically) from its own codes. Our choice.

  Args:
    sids: int [I, L].
    codes: C.

  Returns:
    int32 [I, L] without collisions.

  Raises:
    ValueError: there are more items than SIDs.
  """
  sids = np.array(sids, np.int32)
  items, levels = sids.shape
  if items > codes**levels:
    raise ValueError(
      f'{items} items do not fit {codes}^{levels} SIDs: raise sid.codes or '
      'sid.levels.'
    )
  rows = [tuple(row) for row in sids.tolist()]
  taken = set(rows)
  # A full subtree is never searched twice.
  full = set()
  seen = set()
  for item, row in enumerate(rows):
    if row in seen:
      row = free_sid(row, codes, taken, full)
      taken.add(row)
      sids[item] = row
    seen.add(row)
  return sids


def free_sid(
  row: tuple[int, ...], codes: int, taken: set, full: set
) -> tuple[int, ...]:
  """Finds the free SID that shares the longest prefix with a taken one.

  Args:
    row: the L codes that are wanted.
    codes: C.
    taken: the SIDs that exist.
    full: prefixes known to have no free SID; more are added here, so that none
      is searched twice. Keep it as long as `taken` only grows.

  Returns:
    L codes; below the kept prefix they count upwards (cyclically) from `row`.
  """
  for kept in range(len(row) - 1, -1, -1):
    for found in _search(row[:kept], row, codes, taken, full):
      return found
  raise AssertionError('unreachable: there are fewer items than SIDs')


def _search(
  prefix: tuple[int, ...],
  row: tuple[int, ...],
  codes: int,
  taken: set,
  full: set,
) -> Iterator[tuple[int, ...]]:
  """Yields the free SIDs under a prefix, depth first."""
  if len(prefix) == len(row):
    if prefix not in taken:
      yield prefix
    return
  if prefix in full:
    return
  for step in range(codes):
    code = (row[len(prefix)] + step) % codes
    yield from _search((*prefix, code), row, codes, taken, full)
  full.add(prefix)


def assign(
  nearest: np.ndarray,
  codes: int,
  seed: int,
  last_level: str = 'random',
  *,
  last: np.ndarray | None = None,
  book: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Turns the quantiser's codes into SIDs.

  Args:
    nearest: int [I, L], the nearest code of each level.
    codes: C.
    seed: of the random last level.
    last_level: 'random' draws a last code for colliding items [P], 'sinkhorn'
      shares the codes out by distance (`sinkhorn.last_level`), 'nearest' leaves
      them.
    last: float [I, D], residuals before the last level, for 'sinkhorn'.
    book: float [C, D], the last codebook, for 'sinkhorn'.

  Returns:
    (raw, sids), int32 [I, L] each: before and after conflict resolution. The
    reported uniqueness is that of `raw`; `sids` has no collision.
  """
  raw = np.asarray(nearest, np.int32)
  if last_level == 'random':
    raw = random_last_level(raw, codes, seed)
  elif last_level == 'sinkhorn':
    raw = sinkhorn.last_level(raw, last, book)
  return raw, resolve_conflicts(raw, codes)
