"""Rows of the language-model pipeline: examples laid out and shuffled."""

import dataclasses
import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

from gr2_jax.data import order

# Columns of the int32 [t, 3] rows that are packed. One array an example makes
# packing three times cheaper than a dict of three.
TOKEN, WEIGHT, TASK = range(3)


@dataclasses.dataclass(frozen=True)
class ToRow(grain.transforms.Map):
  """Makes an int32 [t, 3] row of an example."""

  name: str
  task: int
  length: int

  def map(self, element: Mapping[str, np.ndarray]) -> np.ndarray:
    """Checks one example and lays out its columns."""
    tokens = np.asarray(element['tokens'], np.int32)
    weights = np.asarray(element['weights'], np.float32)
    if not tokens.size or tokens.shape != weights.shape or weights[0] != 0:
      raise ValueError(
        f'Source {self.name!r} gave tokens {tokens.shape} and weights '
        f'{weights.shape}: both must be [t] with t > 0 and weights[0] == 0, '
        'since nothing predicts the first token.'
      )
    if len(tokens) > self.length:
      raise ValueError(
        f'Source {self.name!r} gave an example of {len(tokens)} tokens, above '
        f'length={self.length}; raise length, or shorten the source.'
      )
    row = np.empty((len(tokens), 3), np.int32)
    row[:, TOKEN] = tokens
    row[:, WEIGHT] = weights.view(np.int32)
    row[:, TASK] = self.task
    return row


class Shuffle(grain.MapDataset):
  """Reads a data set again and again, each epoch in another order.

  Like `shuffle().repeat()`, whose index permutation costs 0.15 ms an element
  (grain 0.2.18), more than all the rest of the pipeline.
  """

  def __init__(
    self, parent: grain.MapDataset, seed: int, num_epochs: int | None
  ):
    super().__init__(parent)
    self._order = order.Order(len(parent), seed)
    self._num_epochs = num_epochs

  def __len__(self) -> int:
    if self._num_epochs is None:
      return sys.maxsize
    return len(self._parent) * self._num_epochs

  def __getitem__(self, index: int | slice) -> Any:
    """Returns the element at a place of the endless order, or a slice."""
    if isinstance(index, slice):
      return self.slice(index)
    epoch, place = divmod(index, len(self._parent))
    return self._parent[int(self._order[epoch][place])]


def end_with_parent(*_: int) -> None:
  """Has this worker process end when its parent does, even by SIGKILL."""

  def wait() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
