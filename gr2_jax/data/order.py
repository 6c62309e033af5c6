"""Shuffled orders of indices, one an epoch, that can be resumed anywhere."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class Order:
  """Permutations of 0..n-1 by epoch; those of the last two epochs are kept."""

  def __init__(self, n: int, seed: int):
    self._n = n
    self._seed = seed
    self._kept: dict[int, np.ndarray] = {}

  def __getitem__(self, epoch: int) -> np.ndarray:
    """Returns the permutation of an epoch, int32 [n]."""
    if epoch not in self._kept:
      rng = np.random.default_rng((self._seed, epoch))
      self._kept[epoch] = rng.permutation(self._n).astype(np.int32)
      for old in [other for other in self._kept if abs(other - epoch) > 1]:
        del self._kept[old]
    return self._kept[epoch]


def check_made_of(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
  """Compares what a saved and an own iterator are made of.

  Args:
    saved: data sizes and settings in a saved state.
    own: those of the iterator that is to take it.

  Raises:
    ValueError: they differ, with each difference.
  """
  changed = {
    name: (saved.get(name), own.get(name))
    for name in sorted(set(saved) | set(own))
    if saved.get(name) != own.get(name)
  }
  if changed:
    raise ValueError(
      f'The saved state is of another iterator (saved, now): {changed}. Resume '
      'with the same data and settings, or start over.'
    )


class IndexIterator(Iterator[np.ndarray]):
  """Endless shuffled batches of indices; made by `pipeline.index_iterator`."""

  def __init__(self, batch_size: int, made_of: dict):
    self._batch_size = batch_size
    self._made_of = made_of
    self._step = 0
    self._order = Order(made_of['n'], made_of['seed'])

  def __next__(self) -> np.ndarray:
    """Returns the next int32 [B] indices."""
    n = self._made_of['n']
    begin = self._step * self._batch_size
    end = begin + self._batch_size
    self._step += 1
    epochs = range(begin // n, (end - 1) // n + 1)
    order = np.concatenate([self._order[epoch] for epoch in epochs])
    first = epochs[0] * n
    return order[begin - first : end - first]

  def get_state(self) -> dict[str, Any]:
    """Returns a JSON-able state: the next batch is the first one after it."""
    return {'made_of': self._made_of, 'step': self._step}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes back to a state of `get_state`.

    Args:
      state: the state, also after a round trip through JSON.

    Raises:
      ValueError: the state is of an iterator over other data or settings.
    """
    check_made_of(state['made_of'], self._made_of)
    self._step = state['step']
