"""Loads, builds, compares and saves experiment configurations.

Stages receive `ml_collections.ConfigDict`s; modules receive frozen dataclasses
that `build` makes of them, so that a typing error in a config file is found
before anything runs.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

import ml_collections

from gr2_jax import files

T = TypeVar('T')


def build(cls: type[T], section: Mapping[str, Any]) -> T:
  """Makes a frozen dataclass of a config section.

  Args:
    cls: a dataclass type.
    section: a ConfigDict or dict whose keys are fields of `cls`; lists become
      tuples. Fields with a default may be missing.

  Returns:
    An instance of `cls`.

  Raises:
    ValueError: an unknown or a missing field, by name.
  """
  fields = {field.name: field for field in dataclasses.fields(cls)}
  section = to_dict(section)
  unknown = sorted(set(section) - set(fields))
  if unknown:
    raise ValueError(
      f'{cls.__name__} has no field {unknown}; it has {sorted(fields)}. '
      'Correct the name in the config.'
    )
  missing = sorted(
    name
    for name, field in fields.items()
    if name not in section
    and field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  )
  if missing:
    raise ValueError(
      f'{cls.__name__} needs {missing}: add them to the config section.'
    )
  return cls(**{key: _frozen(value) for key, value in section.items()})


def _frozen(value: Any) -> Any:
  if isinstance(value, (list, tuple)):
    return tuple(_frozen(item) for item in value)
  return value


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
  """Reads a config that `save` wrote."""
  return ml_collections.ConfigDict(json.loads(path.read_text()))
