"""What items share and which follow which; evidence and the rules read it.

Features are categories, brands and title words, weighted by how rare they are;
the order of buying is counted in what a retriever may train on. All of it is
our choice.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from gr2_jax.data import dataset as dataset_lib

CATEGORY, BRAND, WORD = 'category', 'brand', 'word'
_WEIGHTS = {CATEGORY: 1.0, BRAND: 1.0, WORD: 0.5}
_WORD = re.compile(r'[^\W\d_]{3,}')
# Title words that more of the items have say nothing ("the", "oz").
_COMMON_WORD = 0.02
# Entries of a list that differ by less of their size do so by rounding.
_ALIKE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
  """Features of I items that at least two of them have.

  Attributes:
    matrix: float32 CSR [I, F], rows of length 1 (or 0).
    kinds: F of CATEGORY, BRAND and WORD.
    names: F texts as they stand in the catalogue (words: in the first title).
    rarity: float32 [F], weight of a feature: log of I over its frequency,
      times the weight of its kind.
  """

  matrix: scipy.sparse.csr_matrix
  kinds: list[str]
  names: list[str]
  rarity: np.ndarray

  def of(self, item: int) -> np.ndarray:
    """Returns the features of an item, int [n]."""
    rows = self.matrix.indptr
    return self.matrix.indices[rows[item] : rows[item + 1]]

  def grown(self, items: Sequence[dataset_lib.Item]) -> 'Features':
    """Returns the features of more items, those that the first I share.

    Args:
      items: N items, whose rows are those behind the first I.
    """
    places = {
      (kind, name.lower() if kind == WORD else name): place
      for place, (kind, name) in enumerate(
        zip(self.kinds, self.names, strict=True)
      )
    }
    found = [
      [places[f] for f in _features_of(item) if f in places] for item in items
    ]
    columns = np.array([place for own in found for place in own], np.int64)
    rows = np.repeat(np.arange(len(items)), [len(own) for own in found])
    matrix = scipy.sparse.csr_matrix(
      (self.rarity[columns], (rows, columns)),
      shape=(len(items), len(self.kinds)),
    )
    both = scipy.sparse.vstack([self.matrix, _unit(matrix)], format='csr')
    return dataclasses.replace(self, matrix=both)


def features(items: Sequence[dataset_lib.Item]) -> Features:
  """Reads the features of a catalogue of I items."""
  owners = collections.defaultdict(list)
  written = {}
  for index, item in enumerate(items):
    for feature, name in _features_of(item).items():
      owners[feature].append(index)
      written.setdefault(feature, name)
  most = {CATEGORY: len(items) - 1, BRAND: len(items) - 1}
  most[WORD] = max(2, _COMMON_WORD * len(items))
  shared = {k: v for k, v in owners.items() if 1 < len(v) <= most[k[0]]}
  rarity = np.array(
    [
      _WEIGHTS[kind] * np.log(len(items) / len(owner))
      for (kind, _), owner in shared.items()
    ],
    np.float32,
  )
  columns = np.repeat(np.arange(len(shared)), [len(v) for v in shared.values()])
  rows = np.array([i for owner in shared.values() for i in owner], np.int64)
  matrix = scipy.sparse.csr_matrix(
    (rarity[columns], (rows, columns)),
    shape=(len(items), len(shared)),
    dtype=np.float32,
  )
  return Features(
    matrix=_unit(matrix),
    kinds=[kind for kind, _ in shared],
    names=[written[feature] for feature in shared],
    rarity=rarity,
  )


def _unit(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
  """Brings the rows to length 1; empty ones stay empty."""
  norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
  scale = scipy.sparse.diags_array(1 / np.maximum(norm, 1e-6))
  return scipy.sparse.csr_matrix(scale @ matrix)


def _features_of(item: dataset_lib.Item) -> dict[tuple[str, str], str]:
  """Features of one item, each once, in a fixed order, as they are written."""
  found = {(CATEGORY, name): name for name in item.categories}
  if item.brand:
    found[BRAND, item.brand] = item.brand
  for word in _WORD.findall(item.title):
    found.setdefault((WORD, word.lower()), word)
  return found


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
  """Which of I items comes after which.

  Attributes:
    counts: float32 CSC [I, I]: row = the earlier item, column = the later one.
    matrix: float32 CSR [I, I]: counts over the square root of both items' sums.
    before: float32 [I], sum of each row of counts.
    after: float32 [I], sum of each column.
  """

  counts: scipy.sparse.csc_matrix
  matrix: scipy.sparse.csr_matrix
  before: np.ndarray
  after: np.ndarray

  def information(
    self, history: np.ndarray, item: int, least: float = 2.0
  ) -> np.ndarray:
    """How much more often `item` follows than by chance.

    Args:
      history: earlier items, int [h].
      item: the later item.
      least: a pair must count as much as this many neighbours, 1 or more.

    Returns:
      float [h], pointwise mutual information in nats; 0 for pairs that were
      seen less often.
    """
    begin, end = self.counts.indptr[item : item + 2]
    seen = self.counts.indices[begin:end]
    place = np.minimum(np.searchsorted(seen, history), max(len(seen) - 1, 0))
    found = np.zeros(len(history))
    if len(seen):
      known = seen[place] == history
      found[known] = self.counts.data[begin:end][place[known]]
    enough = found >= least
    by_chance = self.before[history] * self.after[item]
    lift = np.ones(len(history))
    lift[enough] = found[enough] * self.before.sum() / by_chance[enough]
    return np.log(lift)


def order(
  sequences: Sequence[np.ndarray], num_items: int, window: int
) -> Order:
  """Counts which item comes after which.

  Args:
    sequences: item indices by user, oldest first; only what may be trained on.
    num_items: I.
    window: how far apart two items may stand; a pair at distance d counts 1/d.

  Returns:
    The counts.
  """
  rows, columns = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
  weight = [np.zeros(0, np.float32)]
  for sequence in sequences:
    for distance in range(1, window + 1):
      rows.append(sequence[:-distance])
      columns.append(sequence[distance:])
      weight.append(np.full(len(columns[-1]), 1 / distance, np.float32))
  pairs = (np.concatenate(rows), np.concatenate(columns))
  counts = scipy.sparse.csc_matrix(
    (np.concatenate(weight), pairs), shape=(num_items, num_items)
  )
  counts.sort_indices()
  before = np.asarray(counts.sum(axis=1)).ravel()
  after = np.asarray(counts.sum(axis=0)).ravel()
  left, right = (
    scipy.sparse.diags_array(1 / np.sqrt(np.maximum(total, 1)))
    for total in (before, after)
  )
  matrix = scipy.sparse.csr_matrix(left @ counts @ right, dtype=np.float32)
  return Order(counts, matrix, before, after)


def entries(
  matrix: scipy.sparse.csr_matrix, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Reads rows of a sparse matrix; SciPy takes much longer for a few of them.

  Args:
    matrix: CSR.
    rows: int [n], which rows.

  Returns:
    Of each entry the place in `rows`, its column, and its value.
  """
  begin = matrix.indptr[rows]
  count = matrix.indptr[rows + 1] - begin
  place = np.repeat(np.arange(len(rows)), count)
  first = np.cumsum(count) - count
  chosen = np.arange(len(place)) + (begin - first)[place]
  return place, matrix.indices[chosen], matrix.data[chosen]


def pad(rows: Sequence[np.ndarray]) -> np.ndarray:
  """Stacks N lists of items into int64 [N, longest], filled up with -1."""
  longest = max(len(row) for row in rows)
  padded = np.full((len(rows), max(longest, 1)), -1, np.int64)
  for target, row in zip(padded, rows, strict=True):
    target[: len(row)] = row
  return padded


def centre(
  values: np.ndarray, real: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Brings each row's real entries to mean 0.

  Args:
    values: float [..., N, K].
    real: bool [N, K], which are no padding; padding is at the end.

  Returns:
    (float64 [..., N, K], 0 in padding, and in rows whose deviation is no more
    than a millionth of their largest entry: those are equal but for rounding;
    the deviation of each row, float64 [..., N, 1], 0 in the same rows).
  """
  values = np.where(real, values, 0.0).astype(np.float64)
  count = np.maximum(real.sum(axis=-1, keepdims=True), 1)
  centred = np.where(real, values - _sum(values) / count, 0.0)
  deviation = np.sqrt(_sum(centred**2) / count)
  alike = deviation <= _ALIKE * np.abs(values).max(axis=-1, keepdims=True)
  return np.where(alike, 0.0, centred), np.where(alike, 0.0, deviation)


def standardise(values: np.ndarray, real: np.ndarray) -> np.ndarray:
  """Brings each row's real entries to mean 0 and deviation 1; see `centre`."""
  centred, deviation = centre(values, real)
  return centred / np.where(deviation == 0, 1.0, deviation)


def _sum(values: np.ndarray) -> np.ndarray:
  """Adds up rows from left to right: padding does not change the last bit."""
  return np.cumsum(values, axis=-1)[..., -1:]
