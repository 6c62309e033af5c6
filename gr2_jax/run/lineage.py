"""What the stages of a run were made of, and whether they belong together.

A stage's `config.json` is its key: `seed`; `inputs`, the fingerprints of the
stages that it read; `external`, a hash of what it read from outside the run;
and `config`, the sections that it read. `DONE` holds the key's fingerprint.
How a run is watched (`config.tracking`) is in no key: it changes no result.

A config that differs from that of a finished stage is refused also where
`--stages` leaves that stage out: it would not describe the result.
"""

import pathlib
from collections.abc import Mapping

import ml_collections

from gr2_jax import config as config_lib
from gr2_jax import files


def read_key(workdir: pathlib.Path, stage: str) -> dict | None:
  """Returns the key that a stage was started with; None where it never was.

  Raises:
    ValueError: the file is damaged.
  """
  kinds = {'seed': int, 'inputs': dict, 'external': object, 'config': dict}
  return _read(workdir / stage / 'config.json', kinds)


def read_done(workdir: pathlib.Path, stage: str) -> str | None:
  """Returns the fingerprint of a finished stage; None of any other.

  Raises:
    ValueError: the file is damaged.
  """
  found = _read(workdir / stage / 'DONE', {'fingerprint': str})
  return None if found is None else found['fingerprint']


def _read(path: pathlib.Path, kinds: Mapping[str, type]) -> dict | None:
  """Returns what a stage's record holds; None where there is no such file.

  Args:
    path: of the record.
    kinds: what must be in it, and of which class.
  """
  if not path.exists():
    return None
  found = files.read_object(path)
  wrong = [
    name
    for name, kind in kinds.items()
    if name not in found or not isinstance(found[name], kind)
  ]
  if wrong:
    raise ValueError(
      f'{path} is damaged: it lacks {wrong}. Remove it, and run '
      f'`{_command(path.parent.parent)} --redo` with the config of this run.'
    )
  return found


def describe(changed: list[tuple[str, object, object]], limit: int = 4) -> str:
  """Lays out in one line how a stage's key differs from another.

  Args:
    changed: from `config.diff` of two keys, the saved one first.
    limit: settings that are shown.
  """
  parts = []
  # Settings first: inputs mostly differ because of them.
  ordered = sorted(changed, key=lambda entry: entry[0].startswith('inputs.'))
  for name, before, now in ordered[:limit]:
    if name.startswith('inputs.'):
      parts.append(f'its input {name.removeprefix("inputs.")!r}')
    elif name == 'external':
      parts.append('the files that it reads from outside the run')
    else:
      parts.append(f'{name}: {before!r} -> {now!r}')
  more = len(changed) - limit
  return ', '.join(parts) + (f', and {more} more' if more > 0 else '')


def check(workdir: pathlib.Path, stage: str) -> dict[str, dict]:
  """Checks that a stage and all that it was made from belong together.

  Args:
    workdir: the run's directory.
    stage: the stage that is read.

  Returns:
    Stage to key of this stage and of all that it was made from, inputs first.

  Raises:
    FileNotFoundError: one of them is not finished.
    ValueError: one was made from another input than the one that is there now,
      or two were made with different settings.
  """
  keys: dict[str, dict] = {}
  _collect(workdir, stage, keys)
  for name, key in keys.items():
    for read, fingerprint in key['inputs'].items():
      if fingerprint != read_done(workdir, read):
        raise ValueError(
          f'The stages of {workdir} do not belong together: {name!r} was made '
          f'from another {read!r} than the one that is there now. '
          f'{_remedy(workdir)}'
        )
  _check_settings(workdir, keys)
  return keys


def _collect(workdir: pathlib.Path, stage: str, keys: dict[str, dict]) -> None:
  if stage in keys:
    return
  key = read_key(workdir, stage)
  if key is None or read_done(workdir, stage) is None:
    missing = 'DONE' if key else 'config.json'
    raise FileNotFoundError(
      f'Stage {stage!r} of {workdir} is not finished ({missing} is missing in '
      f'{workdir / stage}). Run `{_command(workdir)}` with the config of this '
      'run.'
    )
  for read in key['inputs']:
    _collect(workdir, read, keys)
  keys[stage] = key


def _check_settings(workdir: pathlib.Path, keys: dict[str, dict]) -> None:
  """Refuses stages that were made with different values of one setting."""
  seen: dict[str, tuple[str, object]] = {}
  for stage, key in keys.items():
    sections = {'seed': key['seed'], **key['config']}
    for name, value in sections.items():
      other, before = seen.setdefault(name, (stage, value))
      if before != value:
        changed = config_lib.diff({name: before}, {name: value})
        raise ValueError(
          f'The stages of {workdir} do not belong together: {other!r} and '
          f'{stage!r} were made with different settings ({other} -> {stage}): '
          f'{describe(changed)}. {_remedy(workdir)}'
        )


def _command(workdir: pathlib.Path) -> str:
  return f'python -m launch.pipeline --config=CONFIG --workdir={workdir}'


def _remedy(workdir: pathlib.Path) -> str:
  return (
    f'Run `{_command(workdir)} --redo` with the config that you want: it makes '
    'the stages again that do not fit it.'
  )


def config(workdir: pathlib.Path, stage: str) -> ml_collections.ConfigDict:
  """Returns the config with which a finished stage is read.

  What the stage and those before it were made with stands in their own keys;
  the rest (how a run is computed, and sections of later stages) is that of the
  run's last start.

  Args:
    workdir: the run's directory.
    stage: the stage that is read.

  Raises:
    FileNotFoundError: no run, or the stage is not finished.
    ValueError: the stages do not belong together; see `check`.
  """
  path = workdir / 'config.json'
  if not path.exists():
    raise FileNotFoundError(
      f'No run in {workdir} (config.json is missing): give the --workdir of '
      'launch.pipeline.'
    )
  found = config_lib.load(path).to_dict()
  for key in check(workdir, stage).values():
    found |= {'seed': key['seed'], **key['config']}
  return ml_collections.ConfigDict(found)
