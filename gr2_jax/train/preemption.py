"""SIGTERM: the machine is wanted elsewhere, or the run is to pause.

A loop finishes its step, saves, and ends the process with `EXIT_CODE`; the same
command goes on from there. Outside of loops there is nothing to save that is
not on disk already, and `listen` ends the process at once, with the same code.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils

# EX_TEMPFAIL of sysexits.h: "the user is invited to retry".
EXIT_CODE = 75


class Preempted(SystemExit):
  """Ends the process with `EXIT_CODE`."""

  def __init__(self, message: str):
    """Logs the message, since an exit code says nothing else."""
    super().__init__(EXIT_CODE)
    logging.warning('%s', message)


def _leave(*signal_and_frame: Any) -> None:
  raise Preempted(
    f'SIGTERM: ending with exit code {EXIT_CODE}; the same command goes on.'
  )


def _ours() -> bool:
  """Says whether this process may set handlers.

  Processes that run together agree on a step at which all stop: JAX listens to
  the signal for them.
  """
  main = threading.current_thread() is threading.main_thread()
  return main and not jax.distributed.is_initialized()


def listen() -> None:
  """Makes SIGTERM end the process with `EXIT_CODE`."""
  if _ours():
    signal.signal(signal.SIGTERM, _leave)


@contextlib.contextmanager
def guard() -> Iterator[Callable[[int], bool]]:
  """Inside, SIGTERM is only noted.

  Yields:
    A function that is called by all processes after each step, with the number
    of steps done, and says whether to save and leave.
  """
  if not _ours():
    several = jax.process_count() > 1
    yield (
      multihost_utils.reached_preemption_sync_point
      if several
      else (lambda step: False)
    )
    return
  noted = threading.Event()
  before = signal.signal(signal.SIGTERM, lambda *_: noted.set())
  try:
    yield lambda step: noted.is_set()
  finally:
    signal.signal(signal.SIGTERM, before)
  if noted.is_set():  # It came after the last step, whose state is saved.
    _leave()
