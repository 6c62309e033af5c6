"""Progress bars with rate and remaining time."""

import contextlib
import contextvars
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import tqdm

from gr2_jax import processes

_COMPILING = 'compiling'
_HIDDEN = contextvars.ContextVar('hidden', default=False)


@contextlib.contextmanager
def hidden(hide: bool = True) -> Iterator[None]:
  """Hides the bars that are made inside.

  Args:
    hide: False leaves them as they are outside.
  """
  token = _HIDDEN.set(hide or _HIDDEN.get())
  try:
    yield
  finally:
    _HIDDEN.reset(token)


class _Bar(tqdm.tqdm):
  """A bar that stops to say that programs are compiled at the first unit."""

  def update(self, n: float | None = 1) -> bool | None:
    """Counts units; see `tqdm`."""
    if not self.disable and self.postfix == _COMPILING:
      self.postfix = None
    return super().update(n)


def bar(
  iterable: Iterable | None = None,
  total: int | None = None,
  desc: str = '',
  *,
  unit: str = 'it',
  initial: int = 0,
  compiles: bool = False,
) -> Any:
  """Returns a progress bar on standard error.

  Where standard error is not a terminal (a log file, CI) the bar prints a line
  every ten seconds instead of redrawing itself. Of several processes the first
  one shows it; inside of `hidden` none does.

  Args:
    iterable: what to walk through; None for a bar that is updated by hand.
    total: number of units, where `iterable` has no length.
    desc: of the work, in a word.
    unit: what is counted.
    initial: units done before (a resumed run).
    compiles: the first unit takes longer, because programs are compiled for it:
      the bar says so until that is done.

  Returns:
    A `tqdm` bar.
  """
  terminal = sys.stderr.isatty()
  return _Bar(
    iterable,
    total=total,
    desc=desc,
    unit=unit,
    initial=initial,
    mininterval=0.2 if terminal else 10.0,
    maxinterval=10.0,
    dynamic_ncols=terminal,
    ascii=None if terminal else ' #',
    postfix=_COMPILING if compiles else None,
    disable=_HIDDEN.get() or not processes.is_first(),
  )
