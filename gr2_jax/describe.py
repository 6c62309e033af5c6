"""What each setting of a config is: value, default, source, and one line.

What is said of a setting stands in the docstring of the dataclass that holds
it, in its section "Attributes:".
"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from gr2_jax import experiment

WIDTH = 100
_MARK = re.compile(r'\[(GR2-T|[PNG])\b')
_FIELD = re.compile(r'(\w+): (.*)')


@dataclasses.dataclass(frozen=True)
class Setting:
  """One setting of a config.

  Attributes:
    name: dotted, as its flag has it behind `--config.`.
    value: in this config.
    default: without one; None of a name that only this config has.
    sources: where the default comes from: 'P', the paper, 'GR2-T', the one
      before it, 'N', numbers of others, 'G', our choice; empty where nothing
      says it.
    help: what it is.
  """

  name: str
  value: Any
  default: Any
  sources: tuple[str, ...]
  help: str


def settings(config: ml_collections.ConfigDict) -> list[Setting]:
  """Describes every setting of a config.

  Args:
    config: of a run, with every field of `experiment.Experiment`.

  Returns:
    In the order of the tree.
  """
  plain = config.to_dict()
  standard = experiment.defaults().to_dict()
  return list(_walk(experiment.Experiment, plain, standard, ''))


def _walk(
  cls: type, values: Mapping, standard: Mapping, prefix: str
) -> Iterator[Setting]:
  types, texts = typing.get_type_hints(cls), attributes(cls)
  for field in dataclasses.fields(cls):
    name, kind = f'{prefix}{field.name}', types[field.name]
    given, usual = values[field.name], standard[field.name]
    if dataclasses.is_dataclass(kind):
      yield from _walk(kind, given, usual, f'{name}.')
      continue
    text = texts[field.name]
    sources = _sources(text) or _sources(_lead(cls))
    if isinstance(given, Mapping):
      for key, value in given.items():
        yield Setting(f'{name}.{key}', value, usual.get(key), sources, text)
    else:
      yield Setting(name, given, usual, sources, text)


def attributes(cls: type) -> dict[str, str]:
  """Returns what a dataclass's docstring says of its fields, by name.

  Args:
    cls: the class; of a field that it inherits, the class that has it says it.
  """
  found = {}
  for holder in reversed(cls.__mro__):
    _, _, section = _doc(holder).partition('\nAttributes:\n')
    name = None
    for line in section.splitlines():
      entry = _FIELD.fullmatch(line.removeprefix('  '))
      if entry:
        name = entry[1]
        found[name] = entry[2]
      elif line.strip() and name:
        found[name] += f' {line.strip()}'
  return found


def _doc(cls: type) -> str:
  return inspect.cleandoc(cls.__doc__ or '')


def _lead(cls: type) -> str:
  return _doc(cls).partition('\nAttributes:\n')[0]


def _sources(text: str) -> tuple[str, ...]:
  marks = _MARK.findall(text)
  if 'our choice' in text.lower():
    marks.append('G')
  return tuple(dict.fromkeys(marks))


def table(found: list[Setting]) -> str:
  """Lays settings out: a line of each with its value, and a line of help.

  Args:
    found: of `settings`.

  Returns:
    Lines of at most `WIDTH` characters.
  """
  lines = []
  for setting in found:
    marks = ''.join(f' [{mark}]' for mark in setting.sources)
    standard = ''
    if setting.value != setting.default:
      standard = f' (default {setting.default!r})'
    line = f'{setting.name} = {setting.value!r}{standard}{marks}'
    lines += [_cut(line), _cut(f'    {setting.help}')]
  return '\n'.join(lines)


_HEAD = """\
# Settings

Every setting of a run, its default, where that comes from, and what it is.
Each is a flag: `rl.alpha` is `--config.rl.alpha`, of a sweep
`--config.base.rl.alpha`. The files of this folder change some of them; what
one has changed is printed by

    python -m launch.pipeline --config=configs/quickstart.py --describe

Sources: P, the paper; GR2-T, the one before it; N, numbers of others or of
industry; G, our choice. Made by `python -m launch.settings`: do not edit it.
"""


def page() -> str:
  """Returns all settings with their defaults as a page of Markdown."""
  lines, before = [_HEAD.rstrip()], ''
  sections = attributes(experiment.Experiment)
  for setting in settings(experiment.defaults()):
    section = setting.name.split('.')[0]
    if section != before:
      lines += ['', f'## {section}', '', _sentence(sections[section]), '']
      lines += ['| setting | default | source | what it is |']
      lines += ['|---|---|---|---|']
      before = section
    cells = [
      f'`{setting.name}`',
      f'`{setting.default!r}`',
      ', '.join(setting.sources),
      setting.help.replace('|', '\\|'),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def _sentence(text: str) -> str:
  return text[0].upper() + text[1:]


def _cut(line: str) -> str:
  if len(line) <= WIDTH:
    return line
  return line[: WIDTH - 3].rpartition(' ')[0] + ' ...'
