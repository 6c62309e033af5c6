"""Bounds of settings, checked when they are read."""

import math
from typing import Any


def at_least(settings: Any, least: float, *names: str) -> None:
  """Refuses numbers that are below a bound, and what is no number.

  Args:
    settings: a dataclass.
    least: the bound.
    *names: of its fields.

  Raises:
    ValueError: the first such field, its value and the bound.
  """
  for name in names:
    value = getattr(settings, name)
    if not least <= value < math.inf:
      raise ValueError(f'{name} = {value}: give {least} or more.')


def share(settings: Any, *names: str, whole: bool = True) -> None:
  """Refuses numbers that are no shares.

  Args:
    settings: a dataclass.
    *names: of its fields.
    whole: whether 1 is one.

  Raises:
    ValueError: the first such field, its value and the bounds.
  """
  for name in names:
    value = getattr(settings, name)
    if not 0 <= value <= 1 or value == 1 and not whole:
      wanted = 'a share in [0, 1]' if whole else '0 or more, and less than 1'
      raise ValueError(f'{name} = {value}: give {wanted}.')
