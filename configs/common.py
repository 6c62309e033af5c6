"""What the configs share: typed switches after the colon, and the base."""

import ml_collections

from gr2_jax import experiment
from gr2_jax.data import padding
from gr2_jax.text import lengths


def parse_switches(arg: str, **defaults) -> ml_collections.ConfigDict:
  """Parses what stands after the colon of `--config=file.py:a=1,b`.

  Args:
    arg: comma-separated `name=value` or `name` (true).
    **defaults: every switch the config knows, with its default; a value is
      read as the type of its default.

  Returns:
    A ConfigDict of all switches.

  Raises:
    ValueError: an unknown switch or a value of another type, by name.
  """
  switches = ml_collections.ConfigDict(defaults)
  for part in filter(None, arg.split(',')):
    name, _, text = part.partition('=')
    if name not in defaults:
      raise ValueError(
        f'Unknown switch {name!r} after the colon; known: {sorted(defaults)}.'
      )
    default = defaults[name]
    try:
      if isinstance(default, bool):
        value = {'': True, 'true': True, '1': True, 'false': False, '0': False}[
          text.lower()
        ]
      else:
        value = type(default)(text)
    except (KeyError, ValueError) as error:
      raise ValueError(
        f'Switch {name}={text!r} is not a {type(default).__name__}.'
      ) from error
    switches[name] = value
  return switches


def base() -> ml_collections.ConfigDict:
  """Returns every setting of a run; a config changes what it must."""
  return experiment.defaults()


def choose_teacher(config: ml_collections.ConfigDict, teacher: str) -> None:
  """Sets who writes a config's traces.

  The three steps of a language model take more words than those of the rules:
  about 130 tokens [N].

  Args:
    config: of a run, changed here.
    teacher: 'rules', 'endpoint' or 'local'.

  Raises:
    ValueError: another teacher.
  """
  if teacher not in ('rules', 'endpoint', 'local'):
    raise ValueError(
      f'Switch teacher={teacher!r}: choose rules, endpoint or local.'
    )
  if teacher == 'rules':
    return
  config.traces.teacher = teacher
  before = lengths.budgets(config).answer
  config.rl.explanation_tokens = 128
  answer = lengths.budgets(config).answer
  config.rl.max_new_tokens = padding.round_up(answer, 32)
  config.sft.train.length += padding.round_up(answer - before, 64)
