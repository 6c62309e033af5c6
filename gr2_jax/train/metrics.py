"""Metrics as (sum, count) pairs, and the file they are written to.

Pairs combine exactly over micro-batches, devices and steps. A name that ends
in `_min` or `_max` holds (extreme, 1) and combines by that extreme.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from gr2_jax import files, processes

Pairs = dict[str, tuple[Any, Any]]

# Names that begin so are of times, which no two runs share; see `timing.py`.
TIMING = 'timing/'


def combine(left: Pairs, right: Pairs, xp: Any = jnp) -> Pairs:
  """Combines the metrics of two parts, name by name.

  Args:
    left: pairs (sum, count).
    right: pairs; a name that only one side has is taken as it is there.
    xp: `jax.numpy` inside of jit; outside `numpy`, for host values: of arrays
      on a mesh of CPU devices every sum would be a program of its own, and XLA
      locks up (and aborts) once 32 of them wait behind one with collectives.

  Returns:
    The pairs of both parts together.
  """
  out = {**left, **right}
  for name in left.keys() & right.keys():
    (total, count), (more, n) = left[name], right[name]
    if name.endswith('_min'):
      out[name] = (xp.minimum(total, more), n)
    elif name.endswith('_max'):
      out[name] = (xp.maximum(total, more), n)
    else:
      out[name] = (total + more, count + n)
  return out


def neutral(zeros: Pairs) -> Pairs:
  """Makes pairs of zeros such that `combine` with others gives the others."""
  extreme = {'_min': jnp.inf, '_max': -jnp.inf}
  return {
    name: (total + extreme.get(name[-4:], 0.0), count)
    for name, (total, count) in zeros.items()
  }


def means(pairs: Pairs) -> dict[str, float]:
  """Divides sums by counts; a name that was counted nowhere is left out."""
  return {
    name: float(total) / float(count)
    for name, (total, count) in pairs.items()
    if float(count) != 0
  }


def split_timing(
  values: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns (what a resumed run repeats, times without their prefix)."""
  times = {
    name.removeprefix(TIMING): value
    for name, value in values.items()
    if name.startswith(TIMING)
  }
  rest = {k: v for k, v in values.items() if not k.startswith(TIMING)}
  return rest, times


class MetricsWriter:
  """Appends one JSON object a line: {'step': int, name: float, ...}.

  Of several processes the first one writes.
  """

  def __init__(self, path: pathlib.Path):
    """Opens nothing yet; the directory of `path` is made if it is missing."""
    self.path = pathlib.Path(path)
    self.path.parent.mkdir(parents=True, exist_ok=True)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends a record and waits until it is on disk.

    Args:
      step: updates done.
      values: finite numbers (or JSON-able values) by name.

    Raises:
      ValueError: a number is not finite, by name.
    """
    record = {'step': int(step)}
    for name, value in values.items():
      value = value.item() if hasattr(value, 'item') else value
      if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
          f'Metric {name!r} is {value} at step {step}: not a finite number.'
        )
      record[name] = value
    if processes.is_first():
      files.append_jsonl(self.path, record)

  def truncate(self, step: int) -> None:
    """Drops the records after `step` and a line that a crash cut off."""
    if not processes.is_first() or not self.path.exists():
      return
    kept = [r for r in files.read_jsonl(self.path) if r['step'] <= step]
    text = ''.join(json.dumps(record) + '\n' for record in kept)
    files.atomic_write(self.path, text)
