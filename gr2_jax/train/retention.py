"""Which checkpoints stay, and what they must have been made with."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Policy:
  """What a directory of checkpoints is to hold.

  Attributes:
    keep: how many of the latest stay; with two there is one before the latest,
      should that be damaged.
    best: metric whose best checkpoint stays too, and is what training returns;
      a '-' before the name says that lower is better. Empty for none: training
      returns its last state.
    config: JSON-able, with the seeds; a checkpoint that was made with another
      one is refused. None to compare nothing.
    force: use it, with a warning.
  """

  keep: int = 2
  best: str = ''
  config: Any = None
  force: bool = False

  @property
  def metric(self) -> str:
    """Name of the metric of `best`."""
    return self.best.removeprefix('-')

  def score(self, metrics: Mapping[str, float]) -> float | None:
    """Returns what is greatest for the best checkpoint; None without it."""
    value = metrics.get(self.metric)
    if value is None:
      return None
    return -float(value) if self.best.startswith('-') else float(value)


def ranked(scores: Mapping[int, float], steps: Iterable[int]) -> list[int]:
  """Returns the steps that have a score, best first; of equals the first."""
  known = [step for step in steps if step in scores]
  return sorted(known, key=lambda step: (-scores[step], step))


class Best:
  """Preserves the checkpoint with the greatest score, of equals the first."""

  def __init__(self, scores: Mapping[int, float]):
    """Watches scores by step."""
    self._scores = scores

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    """Returns whether each checkpoint stays: Orbax's PreservationPolicy."""
    steps = [found.step for found in checkpoints]
    best = ranked(self._scores, steps)[:1]
    return [step in best for step in steps]
