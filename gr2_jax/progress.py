"""Progress bars with rate and remaining time."""

import sys
from collections.abc import Iterable
from typing import Any

import tqdm

from gr2_jax import processes


def bar(
  iterable: Iterable | None = None,
  total: int | None = None,
  desc: str = '',
  unit: str = 'it',
  initial: int = 0,
) -> Any:
  """Returns a progress bar on standard error.

  Where standard error is not a terminal (a log file, CI) the bar prints a line
  every ten seconds instead of redrawing itself. Of several processes the first
  one shows it.

  Args:
    iterable: what to walk through; None for a bar that is updated by hand.
    total: number of units, where `iterable` has no length.
    desc: what is going on.
    unit: what is counted.
    initial: units done before (a resumed run).

  Returns:
    A `tqdm` bar.
  """
  terminal = sys.stderr.isatty()
  return tqdm.tqdm(
    iterable,
    total=total,
    desc=desc,
    unit=unit,
    initial=initial,
    mininterval=0.2 if terminal else 10.0,
    maxinterval=10.0,
    dynamic_ncols=terminal,
    ascii=None if terminal else ' #',
    disable=not processes.is_first(),
  )
