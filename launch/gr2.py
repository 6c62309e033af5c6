"""The command `gr2`: the same programs as `python -m launch.NAME`.

    gr2 pipeline --config=configs/quickstart.py --workdir=DIR
    gr2 rerank --help

A command takes the flags of its module. Configs are found from any directory:
`configs/NAME.py` is the packaged one where there is no such file here.
"""

import difflib
import runpy
import sys

# By the name of the command: the module in launch/, and what it does.
COMMANDS = {
  'pipeline': ('pipeline', 'trains, from raw interactions to the report'),
  'rerank': ('rerank', 're-ranks lists with a finished run'),
  'serve': ('serve', 'answers re-ranking requests over HTTP'),
  'export': ('export', 'writes a model for other software'),
  'new-items': ('new_items', 'gives semantic IDs to new items'),
  'diff': ('diff', 'compares two runs'),
  'traces': ('traces', 'shows what a teacher is asked, and asks it'),
}


def usage() -> str:
  """Returns the list of commands."""
  lines = [f'  {name:10} {what}' for name, (_, what) in COMMANDS.items()]
  return '\n'.join(
    ['Usage: gr2 COMMAND [flags]', '', *lines, '', 'gr2 COMMAND --help']
  )


def main() -> None:
  """Runs the command that the first argument names."""
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('--help', '-h', 'help'):
    print(usage())
    return
  if name not in COMMANDS:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f'did you mean {near[0]}?' if near else f'use {", ".join(COMMANDS)}.'
    sys.exit(f'gr2 has no command {name!r}: {hint}')
  del sys.argv[1]
  module = COMMANDS[name][0]
  runpy.run_module(f'launch.{module}', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
