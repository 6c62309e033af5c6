"""Exact prefix index over the semantic IDs of a catalogue.

The SIDs are sorted; the items whose SIDs share a prefix then form one range of
rows, and reading one more code narrows the range. So the index holds O(I * L)
integers, whatever the number of codes, and names every legal prefix exactly.
The structure is our choice; GR2 is silent on its constrained decoding.

Letters: I items, L levels, C codes a level.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('sids', 'order', 'row_of', 'edge_of', 'edge_code'),
  meta_fields=('codes', 'fanout'),
)
@dataclasses.dataclass(frozen=True)
class PrefixIndex:
  """Sorted SIDs and the edges of their prefix tree; a pytree of arrays.

  An edge of level l is a distinct prefix of l + 1 codes; edges are numbered in
  sorted order, so the children of a prefix are consecutive.

  Attributes:
    sids: int32 [I, L], sorted by row.
    order: int32 [I], the item of each sorted row.
    row_of: int32 [I], the sorted row of each item.
    edge_of: int32 [L, I], the edge of each row at each level.
    edge_code: int32 [L, I], the code of each edge; -1 after the last.
    codes: C.
    fanout: the largest number of children of a prefix, per level.
  """

  sids: jax.Array
  order: jax.Array
  row_of: jax.Array
  edge_of: jax.Array
  edge_code: jax.Array
  codes: int
  fanout: tuple[int, ...]

  @property
  def levels(self) -> int:
    """The number of levels L."""
    return self.sids.shape[1]

  @property
  def num_items(self) -> int:
    """The number of items I."""
    return self.sids.shape[0]

  def root(self) -> tuple[jax.Array, jax.Array]:
    """Returns the range (lo, hi) of the empty prefix: int32 scalars 0 and I."""
    return jnp.int32(0), jnp.int32(self.num_items)

  def narrow(
    self, lo: jax.Array, hi: jax.Array, level: int, code: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Narrows ranges by one more code.

    Args:
      lo: int32 [...], first row of each range.
      hi: int32 [...], one past its last row.
      level: the level of `code`, a Python int; the ranges fix those before.
      code: int32 [...].

    Returns:
      (lo, hi) int32 [...] of the longer prefixes; empty (lo == hi) where no
      item has it.
    """
    start, stop, code = jnp.broadcast_arrays(
      jnp.asarray(lo, jnp.int32),
      jnp.asarray(hi, jnp.int32),
      jnp.asarray(code, jnp.int32),
    )
    read = lambda row: self.sids.at[row, level].get(mode='clip')
    return tuple(
      _first_at_least(read, start, stop, value, self.num_items)
      for value in (code, code + 1)
    )

  def children(self, lo: jax.Array, hi: jax.Array, level: int) -> jax.Array:
    """Returns which codes exist under ranges.

    Args:
      lo: int32 [...], first row of each range.
      hi: int32 [...], one past its last row.
      level: the level of the codes asked for, a Python int.

    Returns:
      bool [..., C]; all False for an empty range.
    """
    lo, hi = jnp.asarray(lo, jnp.int32), jnp.asarray(hi, jnp.int32)
    first = self.edge_of.at[level, lo].get(mode='clip')
    last = self.edge_of.at[level, hi - 1].get(mode='clip')
    count = jnp.where(hi > lo, last - first + 1, 0)
    codes = jnp.arange(self.codes, dtype=jnp.int32)

    def mark(step, found):
      code = self.edge_code.at[level, first + step].get(mode='clip')
      code = jnp.where(step < count, code, -1)
      return found | (code[..., None] == codes.reshape((1,) * lo.ndim + (-1,)))

    found = jnp.zeros((*lo.shape, self.codes), bool)
    return jax.lax.fori_loop(0, self.fanout[level], mark, found)

  def count(self, rows: jax.Array, level: int) -> jax.Array:
    """Counts the items that share the first level + 1 codes of a row.

    Args:
      rows: int32 [...], rows of the index.
      level: a Python int.

    Returns:
      int32 [...], each at least 1.
    """
    # Edges ascend with their rows: those of one prefix are a run.
    read = lambda row: self.edge_of.at[level, row].get(mode='clip')
    own = read(rows)
    start, stop = (jnp.full_like(rows, x) for x in self.root())
    first, after = (
      _first_at_least(read, start, stop, value, self.num_items)
      for value in (own, own + 1)
    )
    return after - first

  def item(self, lo: jax.Array) -> jax.Array:
    """Returns the item at full SIDs.

    Args:
      lo: int32 [...], first rows of ranges that all L codes have narrowed.

    Returns:
      int32 [...] item indices; meaningless where the range is empty (hi == lo).
    """
    return self.order.at[lo].get(mode='clip')


def _first_at_least(
  read: Callable[[jax.Array], jax.Array],
  start: jax.Array,
  stop: jax.Array,
  value: jax.Array,
  rows: int,
) -> jax.Array:
  """Bisects ranges of sorted rows, in place: nothing as long as I is copied.

  Args:
    read: rows int32 [...] to their values, ascending within each range; rows
      past the last are clipped.
    start: int32 [...].
    stop: int32 [...].
    value: int32 [...].
    rows: I.

  Returns:
    int32 [...], the first row of each range whose value is at least `value`;
    `stop` where there is none.
  """

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) // 2
    # `middle` leaves the rows only where low == high == I already.
    right = (low < high) & (read(middle) < value)
    return (
      jnp.where(right, middle + 1, low),
      jnp.where(right | (low >= high), high, middle),
    )

  return jax.lax.fori_loop(0, rows.bit_length(), halve, (start, stop))[0]


def build(sids: np.ndarray, codes: int) -> PrefixIndex:
  """Builds the index of a catalogue.

  Args:
    sids: int [I, L], a distinct SID for each item.
    codes: C; all codes are below it.

  Returns:
    The index.

  Raises:
    ValueError: an empty catalogue, a code out of range, or two items with one
      SID (the message names them).
  """
  sids = np.asarray(sids, np.int32)
  if sids.ndim != 2 or 0 in sids.shape:
    raise ValueError(f'SIDs must be [items, levels], not {sids.shape}.')
  if sids.min() < 0 or sids.max() >= codes:
    raise ValueError(
      f'SID codes lie in {sids.min()}..{sids.max()}, not in 0..{codes - 1}: '
      'pass the number of codes that the SIDs were made with.'
    )
  order = np.lexsort(sids.T[::-1])
  rows = sids[order]
  differs = np.ones(rows.shape, bool)
  differs[1:] = np.maximum.accumulate(rows[1:] != rows[:-1], axis=1)
  if not differs[:, -1].all():
    row = int(np.flatnonzero(~differs[:, -1])[0])
    raise ValueError(
      f'Items {int(order[row - 1])} and {int(order[row])} share the SID '
      f'{tuple(rows[row].tolist())}: resolve conflicts first (sid.assign).'
    )
  edge_of = np.cumsum(differs, axis=0, dtype=np.int32).T - 1
  edge_code = np.full(edge_of.shape, -1, np.int32)
  fanout = []
  parents = np.zeros(len(rows), np.int32)
  for level in range(rows.shape[1]):
    starts = np.flatnonzero(differs[:, level])
    edge_code[level, : len(starts)] = rows[starts, level]
    fanout.append(int(np.bincount(parents[starts]).max()))
    parents = edge_of[level]
  row_of = np.empty(len(rows), np.int32)
  row_of[order] = np.arange(len(rows), dtype=np.int32)
  return PrefixIndex(
    sids=jnp.asarray(rows),
    order=jnp.asarray(order.astype(np.int32)),
    row_of=jnp.asarray(row_of),
    edge_of=jnp.asarray(edge_of),
    edge_code=jnp.asarray(edge_code),
    codes=codes,
    fanout=tuple(fanout),
  )
