"""A seed for every batch: what makes dropout resumable."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gr2_jax.data import pipeline


class Seeded(Iterator[dict[str, np.ndarray]]):
  """Adds seeds, a function of (seed, step, row), to batches of the pipeline."""

  def __init__(self, batches: pipeline.LMIterator, seed: int):
    """Numbers the steps from 0.

    Args:
      batches: what gets seeds.
      seed: of the run.
    """
    self._batches = batches
    self._seed = seed
    self._step = 0

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns the next batch with 'seed', uint32 [B].

    One for each row, so that every micro-batch has its own.
    """
    batch = next(self._batches)
    seeds = np.random.SeedSequence((self._seed, self._step))
    self._step += 1
    return {**batch, 'seed': seeds.generate_state(len(batch['tokens']))}

  def get_state(self) -> dict[str, Any]:
    """Returns a JSON-able state."""
    return {'batches': self._batches.get_state(), 'step': self._step}

  def set_state(self, saved: Mapping[str, Any]) -> None:
    """Goes back to a state of `get_state`."""
    self._batches.set_state(saved['batches'])
    self._step = saved['step']
