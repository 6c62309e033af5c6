"""What every command does first; import it before anything that imports JAX."""

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


def set_up() -> None:
  """Sets up messages, signals and the cache of compiled programs.

  SIGTERM and Ctrl-C end the process with exit codes of their own
  (`preemption.py`).
  Shown are the project's messages of level INFO, and others' warnings. Programs
  are kept beside the assets, for resumed and later runs.
  """
  logging.set_verbosity(logging.INFO)
  root = pathlib.Path(__file__).resolve().parent.parent
  # The root is site-packages, where all others lie, of an installed wheel.
  ours = [root / name for name in ('gr2_jax', 'launch', 'configs')]

  def keep(record) -> bool:
    path = pathlib.Path(record.pathname)
    return record.levelno > 20 or any(map(path.is_relative_to, ours))

  logging.get_absl_handler().addFilter(keep)

  from gr2_jax import assets
  from gr2_jax.train import preemption

  assets.keep_programs()
  preemption.listen()
