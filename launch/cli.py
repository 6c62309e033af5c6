"""Runs a command: an error of the user ends in one message, the last line."""

import functools
import multiprocessing
import os
import pathlib
import re
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from absl import app, flags, logging

_OVERRIDE = re.compile(r'--?(?:no)?config\.([\w.]+)')
_FILE = re.compile(r'--?config(?:=(.*))?')
_HELP = re.compile(r'--?(help|helpshort|helpfull|helpxml|\?)')
# What shells give to a command that writes where nobody reads (SIGPIPE).
_LEFT = 141
# As in `preemption`, which takes seconds to import.
_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
_ROOT = pathlib.Path(__file__).resolve().parent.parent


_DEBUG = flags.DEFINE_bool('debug', False, 'Show the traceback of an error.')


def run(main: Callable[[Sequence[str]], int | None]) -> None:
  """Runs a command.

  Args:
    main: takes what is left of the command line; returns the exit code.
  """
  for number in _CODES:
    signal.signal(number, _leave)
  # Of a command's own module, for its help.
  flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS['debug'])
  app.run(functools.partial(_report, main), flags_parser=_parse)


def _leave(number: int, frame: Any) -> None:
  """Ends a command that has not begun: `preemption.listen` comes later."""
  os._exit(_CODES[number])


def _report(main: Callable, argv: Sequence[str]) -> int | None:
  """Ends with the message of an error that names its remedy (exit code 1)."""
  try:
    code = main(argv)
    print(end='', flush=True)  # Here, where a reader that left is noticed.
    return code
  except (ValueError, OSError, ModuleNotFoundError, RuntimeError) as error:
    if isinstance(error, BrokenPipeError) and _is_left(sys.stdout):
      # What Python would still flush at its exit has nowhere to go.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(_LEFT)
    # Of the runtime errors those of JAX are others than a user's.
    kind = type(error)
    ours = kind is RuntimeError or kind.__module__.startswith('gr2_jax.')
    ours = ours or not isinstance(error, RuntimeError)
    if _DEBUG.value or not ours:
      raise
    sys.exit(f'{error} (--debug shows where.)')
  except SystemExit as error:
    _end_at_once(error)
    raise


def _is_left(stream: TextIO) -> bool:
  """Says whether a pipe's reader has left it, as `head` does."""
  asked = select.poll()
  asked.register(stream.fileno(), 0)
  return any(event & select.POLLERR for _, event in asked.poll(0))


def _end_at_once(error: SystemExit) -> None:
  """Ends a process that a signal ends, without waiting for what it computes.

  Python's own exit waits for programs that run on the devices, or crashes for
  taking away what they use. Processes that run together all end by it: it
  tells the others.
  """
  import jax

  from gr2_jax.train import preemption

  if not isinstance(error, preemption.Preempted):
    return
  logging.warning('%s', error.message)
  if jax.distributed.is_initialized():
    return
  for child in multiprocessing.active_children():
    child.kill()  # They read for this process and write nothing.
  logging.flush()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(error.code)


def _parse(argv: Sequence[str]) -> list[str]:
  _help(argv)
  argv = find_config(argv)
  file = pathlib.Path(_path(argv).partition(':')[0])
  if 'config' in flags.FLAGS and file.name and not file.is_file():
    sys.exit(f'{file}: no such config file; give --config one that is there.')
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    if '--debug' in argv:
      raise
    message = f'{_reason(error)} (--help shows the flags.)'
  except (AttributeError, KeyError):
    message = find_unknown(argv) if 'config' in flags.FLAGS else ''
    if not message:
      raise
  sys.exit(message)


def _reason(error: flags.Error) -> Exception:
  """Returns what a config file itself said, or else the error.

  Around it ml_collections puts the traceback, and absl puts the flag.
  """
  reason = getattr(error.__context__, '__context__', None)
  at_config = 'Error whilst parsing config file' in str(error)
  return reason if at_config and reason is not None else error


def _help(argv: Sequence[str]) -> None:
  """Prints the help, if asked for, whatever the other flags; exit code 0."""
  asked = [argument for argument in argv[1:] if _HELP.fullmatch(argument)]
  if asked:
    try:
      flags.FLAGS([argv[0], asked[0]])
    except SystemExit:
      sys.exit(0)  # After its help absl ends with 1.


def find_config(argv: Sequence[str]) -> list[str]:
  """Lets a packaged config stand in for a file that is not there.

  Args:
    argv: the command line.

  Returns:
    It, where `configs/NAME.py` is the packaged one if it is no file here.
  """
  given = _path(argv)
  name = pathlib.PurePath(given.partition(':')[0])
  packaged = name.parts[:1] == ('configs',) and (_ROOT / name).is_file()
  if not packaged or pathlib.Path(name).is_file():
    return list(argv)
  there = str(_ROOT / given)
  whole = {f'{dashes}config={given}' for dashes in ('-', '--')}
  return [
    f'--config={there}' if x in whole else there if x == given else x
    for x in argv
  ]


def find_unknown(argv: Sequence[str]) -> str:
  """Returns which flag names a setting that the config lacks.

  Args:
    argv: the command line.

  Returns:
    A message with the nearest name; empty where all settings exist.
  """
  from gr2_jax import config as config_lib

  config = flags.FLAGS['config'].parser.parse(_path(argv))
  for given in map(_OVERRIDE.match, argv):
    holder, name = config, '--config'
    for key in given[1].split('.') if given else ():
      if not hasattr(holder, 'keys'):
        return f'{name} is a value and has no setting {key!r}.'
      name = f'{name}.{key}'
      if key not in holder:
        return config_lib.unknown(name, key, holder)
      holder = holder[key]
  return ''


def _path(argv: Sequence[str]) -> str:
  """Returns the config file that a command line names."""
  for index, argument in enumerate(argv):
    found = _FILE.fullmatch(argument)
    if found:
      return found[1] or ''.join(argv[index + 1 : index + 2])
  return ''
