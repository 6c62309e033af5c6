"""Writes the numbers of the pages, out of the files of results/.

    python -m launch.tables
    python -m launch.tables --check

To be run again where a file of results/ or `results/tables.toml` changes: a
test says so. The second writes nothing and ends with 1 where a block is stale.
`gr2_jax/report/tables.py` describes marks and blocks.
"""

import pathlib

from absl import app, flags

from launch import cli

_CHECK = flags.DEFINE_bool('check', False, 'Only say which blocks are stale.')
_ROOT = flags.DEFINE_string('root', '.', 'Directory with README.md, results/.')


def main(argv) -> int:
  """Writes the pages, or says what is stale."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax import files
  from gr2_jax.report import tables

  root = pathlib.Path(_ROOT.value).expanduser()
  found = tables.update_all(root)
  told = tables.describe(root, found)
  if _CHECK.value and found:
    print(f'{told}\nStale: run {tables.COMMAND}')
    return 1
  for path, (page, _) in found.items():
    files.atomic_write(path, page)
  print(told or 'Every block is as its file has it.')
  return 0


if __name__ == '__main__':
  cli.run(main)
