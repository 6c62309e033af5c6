"""Prints how two runs differ: their results, and under it their configs.

    python -m launch.diff DIR_A DIR_B

A and B are directories of runs, as `--workdir` of launch.pipeline names them.
Of results and settings those that differ are listed; of two runs that ended
with the stage candidates, the results of retrieval.
"""

import pathlib

from absl import app

from gr2_jax.report import compare
from launch import cli


def main(argv) -> None:
  """Compares the two directories."""
  if len(argv) != 3:
    raise app.UsageError(
      f'Give two directories of runs, not {argv[1:]}: '
      'python -m launch.diff DIR_A DIR_B'
    )
  left, right = (pathlib.Path(name).expanduser() for name in argv[1:])
  try:
    print(compare.differences(left, right))
  except FileNotFoundError as error:
    raise app.UsageError(str(error)) from error


if __name__ == '__main__':
  cli.run(main)
