"""Loads, builds, compares and saves experiment configurations.

Stages receive `ml_collections.ConfigDict`s; modules receive frozen dataclasses
that `build` makes of them, so that a typing error in a config file is found
before anything runs. `defaults` gives the ConfigDict of a dataclass.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import pathlib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import ml_collections

from gr2_jax import files

T = TypeVar('T')


def build(
  cls: type[T], section: Mapping[str, Any], name: str | None = None
) -> T:
  """Makes a frozen dataclass of a config section.

  Args:
    cls: a dataclass type. Its fields are numbers, texts, booleans, `Literal`s,
      tuples of these, mappings from texts to these, or dataclasses, which are
      built of sections of their own.
    section: a ConfigDict or dict whose keys are fields of `cls`; lists become
      tuples, and whole numbers floats where `cls` wants these. What is missing
      takes its default, of a section that the field's default holds the value
      there.
    name: of the section in the whole config, such as 'sft.train', for messages;
      '' for the whole, and by default that of the class.

  Returns:
    An instance of `cls`.

  Raises:
    ValueError: an unknown, a missing or a wrong field, by its dotted name.
  """
  name = cls.__name__ if name is None else name
  return _build(cls, section, name, dataclasses.MISSING)


def _build(cls: type[T], section: Any, name: str, default: Any) -> T:
  """Builds `cls`, whose missing fields are those of the instance `default`."""
  section = to_dict(section)
  if not isinstance(section, dict):
    raise ValueError(f'{name} = {section!r} must be a section of settings.')
  prefix = f'{name}.' if name else ''
  fields = {field.name: field for field in dataclasses.fields(cls)}
  types = typing.get_type_hints(cls)
  for key in section:
    if key not in fields:
      raise ValueError(unknown(f'{prefix}{key}', key, fields))
  values, missing = {}, []
  for key, field in fields.items():
    given = _default(field)
    if default is not dataclasses.MISSING:
      given = getattr(default, key)
    if key in section:
      values[key] = _read(types[key], section[key], f'{prefix}{key}', given)
    elif given is not dataclasses.MISSING:
      values[key] = given
    elif dataclasses.is_dataclass(types[key]):
      values[key] = _build(types[key], {}, f'{prefix}{key}', given)
    else:
      missing.append(key)
  if missing:
    raise ValueError(f'{name} needs {missing}: add them to the config section.')
  try:
    return cls(**values)
  except ValueError as error:
    # Of classes that serve several sections.
    known = name == cls.__name__ or prefix in str(error)
    raise ValueError(str(error) if known else f'{name}: {error}') from error


def unknown(name: str, key: str, known: Mapping[str, Any]) -> str:
  """Describes a setting that does not exist, with the nearest that does.

  Args:
    name: what was asked for, such as 'rl.grup_size'.
    key: its last part.
    known: has the names that there are in its place.
  """
  near = difflib.get_close_matches(key, known, n=1)
  prefix = name.removesuffix(key)
  meant = f'did you mean {prefix}{near[0]}? ' if near else ''
  return f'There is no setting {name}: {meant}Known here: {sorted(known)}.'


def _default(field: dataclasses.Field) -> Any:
  if field.default_factory is not dataclasses.MISSING:
    return field.default_factory()
  return field.default


def _read(kind: Any, value: Any, name: str, default: Any) -> Any:
  """Returns a value as a field's type wants it."""
  if dataclasses.is_dataclass(kind):
    return _build(kind, value, name, default)
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is typing.Literal:
    if value not in arguments:
      raise ValueError(f'{name} = {value!r} must be one of {arguments}.')
    return value
  if origin is tuple and isinstance(value, (list, tuple)):
    return tuple(_read(arguments[0], item, name, None) for item in value)
  if origin is Mapping and isinstance(value, dict):
    return {
      key: _read(arguments[1], item, f'{name}.{key}', None)
      for key, item in value.items()
    }
  if kind is float and type(value) is int:
    return float(value)
  if kind is float and type(value) is float and not math.isfinite(value):
    raise ValueError(f'{name} = {value} is not finite: give a number.')
  kind = origin or kind
  if value is None:
    raise ValueError(f'{name} is not set: give {_WORDS.get(kind, "a value")}.')
  if kind in _WORDS and type(value) is not kind:
    raise ValueError(
      f'{name} = {value!r} is of type {type(value).__name__}: give '
      f'{_WORDS[kind]}.'
    )
  return value


# What the types of fields are called in messages.
_WORDS = {
  int: 'a whole number',
  float: 'a number',
  bool: 'True or False',
  str: 'a text',
  tuple: 'a sequence',
  Mapping: 'a section',
}


def defaults(cls: type) -> ml_collections.ConfigDict:
  """Returns every setting of a tree of dataclasses with its default.

  Args:
    cls: a dataclass type, as for `build`; each of its fields has a default, or
      is a dataclass of which this holds.

  Returns:
    A section for each dataclass and for each mapping; tuples stay tuples.

  Raises:
    TypeError: a field without a default.
  """
  return ml_collections.ConfigDict(_defaults(cls, cls.__name__))


def _defaults(cls: type, name: str) -> dict[str, Any]:
  types, found = typing.get_type_hints(cls), {}
  for field in dataclasses.fields(cls):
    value = _default(field)
    if value is not dataclasses.MISSING:
      found[field.name] = _plain(value)
    elif dataclasses.is_dataclass(types[field.name]):
      inner = f'{name}.{field.name}'
      found[field.name] = _defaults(types[field.name], inner)
    else:
      raise TypeError(f'{name}.{field.name} has no default.')
  return found


def _plain(value: Any) -> Any:
  """Turns dataclasses and mappings into dicts; all else stays as it is."""
  if dataclasses.is_dataclass(value):
    names = [field.name for field in dataclasses.fields(value)]
    return {name: _plain(getattr(value, name)) for name in names}
  return dict(value) if isinstance(value, Mapping) else value


def to_dict(config: Any) -> Any:
  """Turns ConfigDicts, dataclasses and tuples into JSON-able values."""
  if isinstance(config, ml_collections.ConfigDict):
    config = config.to_dict()
  if dataclasses.is_dataclass(config) and not isinstance(config, type):
    config = dataclasses.asdict(config)
  if isinstance(config, Mapping):
    return {str(key): to_dict(value) for key, value in config.items()}
  if isinstance(config, (list, tuple)):
    return [to_dict(value) for value in config]
  return config


def fingerprint(value: Any) -> str:
  """Returns a short hash (16 hex digits) of any JSON-able value or config."""
  text = json.dumps(to_dict(value), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(config: Any, prefix: str = '') -> dict[str, Any]:
  """Flattens nested sections to `{'section.key': value}`."""
  flat = {}
  for key, value in to_dict(config).items():
    name = f'{prefix}{key}'
    if isinstance(value, dict):
      flat.update(flatten(value, f'{name}.'))
    else:
      flat[name] = value
  return flat


def diff(left: Any, right: Any) -> list[tuple[str, Any, Any]]:
  """Lists what differs between two configs.

  Args:
    left: a config or nested dict.
    right: another.

  Returns:
    Sorted (name, value on the left, value on the right); None where a side has
    no such key.
  """
  a, b = flatten(left), flatten(right)
  return [
    (name, a.get(name), b.get(name))
    for name in sorted(set(a) | set(b))
    if a.get(name) != b.get(name)
  ]


def save(config: Any, path: pathlib.Path) -> None:
  """Writes a config as JSON, in one step."""
  text = json.dumps(to_dict(config), indent=2, sort_keys=True)
  files.atomic_write(path, text + '\n')


def load(path: pathlib.Path) -> ml_collections.ConfigDict:
  """Reads a config that `save` wrote; ValueError where it is damaged."""
  return ml_collections.ConfigDict(files.read_object(path))
