"""XProf traces of some steps of a training.

They hold no calls of Python: JAX's Python tracer crashes the process where the
threads of TensorStore, which write checkpoints, start and end meanwhile (seen
with jaxlib 0.10.2 and Python 3.11, within seconds where traces are started and
stopped during saves). cProfile measures Python.
"""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
from absl import logging


def parse(steps: str) -> tuple[int, int]:
  """Reads 'START:STOP' as the first and the last step to trace.

  Args:
    steps: two numbers of steps, as `metrics.jsonl` counts them, from 1 on; both
      belong to the trace.

  Returns:
    (first, last).

  Raises:
    ValueError: anything else.
  """
  found = re.fullmatch(r'(\d+):(\d+)', steps)
  if not found or not 1 <= int(found[1]) <= int(found[2]):
    raise ValueError(
      f'profile = {steps!r}: give the first and the last step to trace, '
      'counted from 1, such as 10:12.'
    )
  return int(found[1]), int(found[2])


def note_skipped(steps: str, directory: pathlib.Path) -> None:
  """Warns that a stage is not traced because it is skipped, where it trains.

  Args:
    steps: as `parse` reads them; empty for none.
    directory: of the stage, which is finished.
  """
  if steps and any(directory.rglob('metrics.jsonl')):
    logging.warning(
      'Stage %s: --profile=%s traces no step of it, because it is skipped: use '
      'another --workdir.',
      directory.name,
      steps,
    )


class Profiler:
  """Runs the steps of a training and traces those asked for.

  Use as a context manager: its end closes a trace that is still open.
  """

  def __init__(self, steps: str, directory: pathlib.Path):
    """Prepares a trace.

    Args:
      steps: as `parse` reads them; empty for none.
      directory: where a trace is written; `xprof --logdir=DIRECTORY` shows it.

    Raises:
      ValueError: `steps` is not of that form.
    """
    self._first, self._last = parse(steps) if steps else (0, 0)
    self._directory = directory
    self._open = self._done = False

  def run(self, number: int, step: Callable, *args: Any) -> Any:
    """Returns `step(*args)`, the training's step of that number."""
    if not self._first <= number <= self._last or not self._last:
      return step(*args)
    if not self._open:
      # What is still being computed belongs to the steps before.
      jax.block_until_ready(args)
      options = jax.profiler.ProfileOptions()
      # The Python tracer walks the list of threads while those that write
      # checkpoints enter it half made, and the process crashes.
      options.python_tracer_level = 0
      jax.profiler.start_trace(self._directory, profiler_options=options)
      self._open = self._done = True
    with jax.profiler.StepTraceAnnotation('train', step_num=number):
      result = step(*args)
      if number == self._last:
        jax.block_until_ready(result)
    if number == self._last:
      self.close()
    return result

  def close(self) -> None:
    """Writes the trace, if one is open."""
    if self._open:
      self._open = False
      jax.profiler.stop_trace()
      logging.info('Trace of the steps: %s', self._directory)

  def __enter__(self) -> 'Profiler':
    return self

  def __exit__(self, *exc: Any) -> None:
    self.close()
    if self._last and not self._done:
      logging.warning(
        'No trace in %s: the training made none of the steps %d to %d.',
        self._directory,
        self._first,
        self._last,
      )
