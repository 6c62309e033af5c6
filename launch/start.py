"""What every command does first; import it before anything that imports JAX."""

import logging as python_logging
import os
import pathlib

from absl import logging

from launch import memory, tpu

memory.keep()
tpu.set_flags()
# XLA's CPU backend reads its flags when JAX starts.
os.environ.setdefault(
  'XLA_FLAGS', '--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE'
)

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# Of an installed wheel the root is site-packages, where all others lie.
_OURS = [_ROOT / name for name in ('gr2_jax', 'launch', 'configs')]
# Its warnings need no action: of data sets that the project itself makes.
_QUIET = 'tensorflow_datasets'


def is_shown(record: python_logging.LogRecord) -> bool:
  """Returns whether a message is printed: the project's, and others' warnings.

  Args:
    record: the message.
  """
  path = pathlib.Path(record.pathname)
  if any(map(path.is_relative_to, _OURS)):
    return True
  quiet = _QUIET in path.parts
  least = python_logging.ERROR if quiet else python_logging.WARNING
  return record.levelno >= least


def set_up() -> None:
  """Sets up messages, signals and the cache of compiled programs.

  SIGTERM and Ctrl-C end the process with exit codes of their own
  (`preemption.py`).
  Shown are the messages of `is_shown`. Programs are kept beside the assets, for
  resumed and later runs.
  """
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(is_shown)

  from gr2_jax import assets
  from gr2_jax.train import preemption

  assets.keep_programs()
  preemption.listen()
