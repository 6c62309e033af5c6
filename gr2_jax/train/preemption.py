"""SIGTERM and Ctrl-C: a run saves, and ends with an exit code to resume on.

A loop finishes its step, saves, and ends the process with the exit code of the
signal; the same command continues from there. Outside of loops there is nothing
to save that is not on disk already, and `listen` ends the process at once, with
the same code.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

# EX_TEMPFAIL of sysexits.h: "the user is invited to retry".
EXIT_CODE = 75
# What shells give to a command that Ctrl-C ended.
INTERRUPTED = 130
_CODES = {signal.SIGTERM: EXIT_CODE, signal.SIGINT: INTERRUPTED}


class Preempted(SystemExit):
  """Ends the process with the exit code of a signal.

  Attributes:
    message: what happened, since an exit code says nothing else. The command
      shows it when all progress bars are closed, as its last line.
  """

  def __init__(self, code: int, saved: str = ''):
    """Puts the message together.

    Args:
      code: `EXIT_CODE` or `INTERRUPTED`.
      saved: what was saved and where it stands; empty for nothing.
    """
    super().__init__(code)
    name = 'SIGTERM' if code == EXIT_CODE else 'Ctrl-C'
    self.message = (
      f'{name}: {saved}{"; " if saved else ""}ending with exit code {code}. '
      'The same command continues.'
    )


def _leave(number: int, frame: Any) -> None:
  raise Preempted(_CODES[number])


def _ours() -> bool:
  """Returns whether this process may set handlers.

  Processes that run together agree on a step at which all stop: JAX listens to
  the signal for them.
  """
  main = threading.current_thread() is threading.main_thread()
  return main and not jax.distributed.is_initialized()


def listen() -> None:
  """Makes SIGTERM and Ctrl-C end the process with their exit codes."""
  if _ours():
    for number in _CODES:
      signal.signal(number, _leave)


@contextlib.contextmanager
def guard() -> Iterator[Callable[[int], int]]:
  """Inside, the signals are only noted.

  Yields:
    A function that is called by all processes after each step, with the number
    of steps done, and returns the exit code to save and leave with, or 0.
  """
  if not _ours():
    several = jax.process_count() > 1
    reached = multihost_utils.reached_preemption_sync_point
    yield lambda step: EXIT_CODE if several and reached(step) else 0
    return
  noted: list[int] = []
  note = lambda number, frame: noted.append(number)
  before = {number: signal.signal(number, note) for number in _CODES}
  try:
    yield lambda step: _CODES[noted[0]] if noted else 0
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if noted:  # It came after the last step, whose state is saved.
    _leave(noted[0], None)
