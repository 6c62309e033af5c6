"""Writes the page of all settings, out of the docstrings that describe them.

    python -m launch.settings --output=configs/SETTINGS.md

To be run again where a setting, its default or its description changes: a test
says so. `launch.pipeline --describe` prints the same for one config.
"""

import pathlib

from absl import app, flags

from launch import cli

_OUTPUT = flags.DEFINE_string(
  'output', 'configs/SETTINGS.md', 'Where to write the page.'
)


def main(argv) -> None:
  """Writes the page."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax import describe

  pathlib.Path(_OUTPUT.value).expanduser().write_text(describe.page())


if __name__ == '__main__':
  cli.run(main)
