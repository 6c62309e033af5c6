"""Updates that were skipped because their loss or gradient is not finite."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from gr2_jax import files, processes

# (sum, count) by name, on the host.
_Pairs = Mapping[str, tuple[float, float]]


class Skips:
  """Lets single ones pass, and ends a run that does nothing else.

  Attributes:
    row: steps one after the other with a skipped update, up to the last.
  """

  def __init__(self, limit: int, directory: pathlib.Path, row: int = 0):
    """Goes on counting.

    Args:
      limit: how many in a row end the run; 1 for the first.
      directory: gets the batch that ended it.
      row: of the run before.
    """
    self.row = row
    self._limit = limit
    self._directory = directory

  def check(self, step: int, pairs: _Pairs, batch: Any) -> dict:
    """Checks the metrics of a step.

    Args:
      step: updates done with it.
      pairs: its metrics; `skipped` counts its updates that were skipped.
      batch: what it computed on.

    Returns:
      The metrics that are finite.

    Raises:
      FloatingPointError: a metric is not finite although no update was skipped,
        or too many in a row were; names step and file.
    """
    bad = sorted(k for k, v in pairs.items() if not all(map(math.isfinite, v)))
    skipped = pairs.get('skipped', (0.0, 0.0))[0]
    self.row = self.row + 1 if skipped else 0
    if self.row >= self._limit or (bad and not skipped):
      self._stop(step, pairs, bad, batch)
    if skipped:
      logging.warning(
        'Step %d: %s not finite; the update was skipped (%d in a row of at '
        'most %d).',
        step,
        ', '.join(bad) or 'the gradient',
        self.row,
        self._limit,
      )
    return {k: v for k, v in pairs.items() if k not in bad}

  def _stop(self, step: int, pairs: _Pairs, bad: list, batch: Any) -> None:
    path = self._directory / f'batch_{step}.npz'
    arrays = {
      jax.tree_util.keystr(where, simple=True, separator='.'): np.asarray(x)
      for where, x in jax.tree_util.tree_leaves_with_path(batch)
    }
    if processes.is_first():
      files.atomic_savez(path, **arrays)
    numbers = {k: pairs.get(k) for k in ('loss', 'grad_norm', 'lr')}
    raise FloatingPointError(
      f'Step {step}: {", ".join(bad) or "the gradient"} not finite, '
      f'{self.row} steps in a row (limit: {self._limit}); as sum and count: '
      f'{numbers}. Its batch is {path}. Inspect it, or lower the learning rate '
      'or clip_norm, or raise max_skipped; no checkpoint holds a skipped '
      'update.'
    )
