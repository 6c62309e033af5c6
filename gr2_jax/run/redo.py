"""Which stages a start would make again: asked before any of them runs."""

import pathlib
from collections.abc import Collection, Mapping

import ml_collections
from absl import logging

from gr2_jax import config as config_lib
from gr2_jax.run import lineage, runner


def check(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  stages: Mapping[str, runner.Stage],
  asked: Collection[str],
  *,
  force: bool = False,
  redo: bool = False,
) -> list[str]:
  """Refuses a start that would contradict or delete finished stages.

  Nothing is written. What the asked stages read from outside the run is checked
  to exist, so that a wrong path is found here.

  Args:
    config: a whole config.
    workdir: the run's directory.
    stages: all stages by name, in their order.
    asked: the stages that are to run.
    force: continue from checkpoints of another config.
    redo: stages of another config may be made again.

  Returns:
    The asked stages that are not finished, or made again.

  Raises:
    FileNotFoundError: files from outside the run, or a stage that is read and
      not asked for, are missing.
    ValueError: finished stages would be made again and `redo` is False, stages
      that are read were made with another config, or the checkpoints of an
      interrupted one were and both `force` and `redo` are False.
  """
  fingerprints: dict[str, str] = {}
  redone, other, left = {}, {}, []
  for name in _needed(config, stages, asked):
    stage = stages[name]
    if name in asked:
      key = stage.key(config, fingerprints)
      state, changed = runner.compare(workdir, name, key)
      if state == runner.CUT and not (force or redo):
        runner.refuse_cut(workdir, name, changed)
      if state == runner.REDO:
        redone[name] = changed
      if state != runner.SKIP:
        left.append(name)
      fingerprints[name] = config_lib.fingerprint(key)
    else:
      saved = _read_finished(workdir, name, stages, asked)
      key = stage.key(config, fingerprints, saved['external'])
      changed = config_lib.diff(saved, key)
      if changed:
        other[name] = changed
      fingerprints[name] = lineage.read_done(workdir, name)
  if other or (redone and not redo):
    raise ValueError(_refusal(workdir, redone, other, asked))
  _warn(workdir, stages, redone)
  return left


def _needed(
  config: ml_collections.ConfigDict,
  stages: Mapping[str, runner.Stage],
  asked: Collection[str],
) -> list[str]:
  """Returns the asked stages and all that they are made from, in order."""
  needed = set(asked)
  for name in reversed(stages):
    if name in needed:
      needed |= set(stages[name].reads(config))
  return [name for name in stages if name in needed]


def _read_finished(
  workdir: pathlib.Path,
  name: str,
  stages: Mapping[str, runner.Stage],
  asked: Collection[str],
) -> dict:
  """Returns the key of a stage that is read, and not asked for."""
  saved = lineage.read_key(workdir, name)
  if saved is None or lineage.read_done(workdir, name) is None:
    first = next(stage for stage in stages if stage in asked)
    raise FileNotFoundError(
      f'Stage {first!r} needs {workdir / name}, which is not finished (no DONE '
      f'in it). Run the stage {name!r} first, or leave --stages out.'
    )
  return saved


def _refusal(
  workdir: pathlib.Path,
  redone: Mapping[str, list],
  other: Mapping[str, list],
  asked: Collection[str],
) -> str:
  lines = [
    f'{workdir} holds finished stages that do not fit this config or what they '
    'read (saved -> now):'
  ]
  lines += [
    f'  {name}: {lineage.describe(changed)}'
    + (' (not in --stages)' if name in other else '')
    for name, changed in (*other.items(), *redone.items())
  ]
  if other:
    names = ','.join((*other, *asked))
    again = f'--stages={names} --redo makes them'
  else:
    again = '--redo makes them'
  lines.append(
    'Use the config they were made with, or another --workdir. '
    f'{again} again, which deletes what they wrote.'
  )
  return '\n'.join(lines)


def _warn(
  workdir: pathlib.Path,
  stages: Mapping[str, runner.Stage],
  redone: Mapping[str, list],
) -> None:
  """Names finished stages that will not fit those that are made again."""
  unfit = set(redone)
  for name in stages:
    if lineage.read_done(workdir, name) is not None:
      if unfit & set(lineage.read_key(workdir, name)['inputs']):
        unfit.add(name)
  left = [name for name in stages if name in unfit and name not in redone]
  if left:
    logging.warning(
      'The stages %s were made from what is made again now, and cannot be read '
      'until they are run with --redo, too.',
      ', '.join(left),
    )
