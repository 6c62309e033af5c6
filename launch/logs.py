"""What the commands print: their own words, not those of the libraries."""

import pathlib

from absl import logging


def set_up() -> None:
  """Shows the project's messages of level INFO, and others' warnings."""
  logging.set_verbosity(logging.INFO)
  root = pathlib.Path(__file__).resolve().parent.parent

  def keep(record) -> bool:
    own = pathlib.Path(record.pathname).is_relative_to(root)
    installed = '.venv' in record.pathname
    return record.levelno > 20 or (own and not installed)

  logging.get_absl_handler().addFilter(keep)
