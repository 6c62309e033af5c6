"""Joins the processes of one run: a TPU pod, several GPU hosts, or a test.

Every process runs the same command; they share the workdir.

    --coordinator=auto                        TPU pods, SLURM, Open MPI and what
                                              else JAX recognises
    --coordinator=HOST:PORT --num_processes=N --process_id=I      anything else
"""

import os
import sys
import traceback

from absl import app, flags, logging

_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  '',
  'Of a run of several processes: host:port of process 0, or auto where JAX '
  'finds the others itself (TPU pods, SLURM, Open MPI).',
)
_COUNT = flags.DEFINE_integer(
  'num_processes', None, 'How many processes the run has.', lower_bound=1
)
_ID = flags.DEFINE_integer(
  'process_id', None, 'Which one this is, from 0.', lower_bound=0
)
_HEARTBEAT = flags.DEFINE_integer(
  'heartbeat_timeout',
  100,
  'Seconds without a sign of life after which a process counts as dead and the '
  'others end.',
  lower_bound=2,
)


class _EndAtOnce(app.ExceptionHandler):
  """Ends this process without waiting for the others, so that they end too.

  Python's own exit would wait for all of them, which wait for this one.
  """

  def handle(self, exc: Exception) -> None:
    """Logs what happened, and ends."""
    traceback.print_exception(exc)
    logging.error(
      'Process %d of %d ends: %s: %s. If the message speaks of a connection or '
      'a collective, another process ended first: see its output. Start all '
      'processes again, and the run continues from its last checkpoint.',
      _process()[0],
      _process()[1],
      type(exc).__name__,
      str(exc).split('\n')[0],
    )
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _process() -> tuple[int, int]:
  import jax

  return jax.process_index(), jax.process_count()


def join() -> None:
  """Connects to the other processes, if the flags speak of any.

  Call it before anything computes.

  Raises:
    app.UsageError: flags that do not fit each other.
  """
  address = _COORDINATOR.value
  given = (_COUNT.value, _ID.value)
  if not address and given == (None, None):
    return
  if not address or (address != 'auto' and None in given):
    raise app.UsageError(
      f'--coordinator={address!r}, --num_processes={given[0]}, '
      f'--process_id={given[1]}: give all three, or --coordinator=auto on a '
      'TPU pod or under SLURM.'
    )
  if address != 'auto' and given[1] >= given[0]:
    raise app.UsageError(
      f'--process_id={given[1]} of --num_processes={given[0]}: the processes '
      f'are 0 to {given[0] - 1}.'
    )
  import jax

  # What CPUs talk through; other devices have their own.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(
    None if address == 'auto' else address,
    *given,
    heartbeat_timeout_seconds=_HEARTBEAT.value,
  )
  app.install_exception_handler(_EndAtOnce())
  index, count = _process()
  if index:
    # One process logs for all.
    logging.set_verbosity(logging.WARNING)
  logging.info(
    'Process %d of %d, %d devices of %d.',
    index,
    count,
    jax.local_device_count(),
    jax.device_count(),
  )
