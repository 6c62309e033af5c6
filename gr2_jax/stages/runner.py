"""Runs a stage once: skips what is done, resumes, redoes what changed.

A stage that was cut off, has checkpoints and got another config is refused:
they may be hours of work, and a typing error would throw them away.

A stage writes `workdir/<stage>/`: `config.json`, its artifacts, `summary.json`
and last, atomically, `DONE` with the fingerprint of its config and inputs. Of
several processes the first one decides what is to be done, and writes.
"""

import dataclasses
import functools
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Sequence

import jax
import ml_collections
from absl import logging

from gr2_jax import config as config_lib
from gr2_jax import files, processes
from gr2_jax.stages import meshes
from gr2_jax.train import writers
from gr2_jax.train.retention import Policy


@dataclasses.dataclass(frozen=True)
class Context:
  """What a stage gets beside its config.

  Attributes:
    name: the stage.
    workdir: the run's directory.
    directory: `workdir/<stage>`, where the stage writes.
    mesh: the device mesh of `config.mesh`.
    seed: `config.seed` folded with the stage's name.
    key: what the stage is made of: seed, inputs and config.
    force: go on from checkpoints that were made with another config.
    tracking: how its trainings are watched, of `config.tracking`; no stage is
      done anew where that changes.
  """

  name: str
  workdir: pathlib.Path
  directory: pathlib.Path
  mesh: jax.sharding.Mesh
  seed: int
  key: dict
  force: bool
  tracking: writers.Tracking

  def policy(self, best: str = '') -> Policy:
    """Returns what the stage's checkpoints must agree with.

    Args:
      best: metric whose best checkpoint is kept; see `Policy`.
    """
    config = {**self.key, 'stage_seed': self.seed}
    return Policy(best=best, config=config, force=self.force)

  def input(self, stage: str) -> pathlib.Path:
    """Returns the directory of an earlier stage."""
    return self.workdir / stage


def _read_done(directory: pathlib.Path) -> dict | None:
  done = directory / 'DONE'
  return files.read_json(done) if done.exists() else None


def _input_fingerprints(
  name: str, workdir: pathlib.Path, inputs: Sequence[str]
) -> dict[str, str]:
  found = {}
  for stage in inputs:
    done = _read_done(workdir / stage)
    if done is None:
      raise FileNotFoundError(
        f'Stage {name!r} reads {workdir / stage}, which is not finished (no '
        f'DONE in it). Run the stage {stage!r} first, or leave --stages out.'
      )
    found[stage] = done['fingerprint']
  return found


def _prepare(
  directory: pathlib.Path,
  name: str,
  key: dict,
  force: bool,
  keep: Sequence[str],
) -> str:
  """Returns 'skip', 'resume' or 'start', clearing what no longer holds."""
  fingerprint = config_lib.fingerprint(key)
  done = _read_done(directory)
  if done is not None and done['fingerprint'] == fingerprint:
    return 'skip'
  if not directory.exists():
    return 'start'
  started = directory / 'config.json'
  before = files.read_json(started) if started.exists() else None
  if before == key:
    return 'resume'
  changed = config_lib.diff(before or {}, key)
  listed = ', '.join(f'{k}: {a!r} -> {b!r}' for k, a, b in changed[:8])
  own = all(k == 'seed' or k.startswith('config.') for k, *_ in changed)
  if done is None and own and any(directory.glob('checkpoints/[0-9]*')):
    if force:
      return 'resume'
    raise ValueError(
      f'Stage {name!r} was cut off, and its config differs from that of its '
      f'checkpoints (saved -> now): {listed}. Use that config; or go on from '
      f'them with the new one (--force); or remove {directory} to begin anew.'
    )
  logging.warning(
    'Stage %s: its config or inputs changed (%s); doing it anew.', name, listed
  )
  _clear(directory, keep)
  return 'start'


def _clear(directory: pathlib.Path, keep: Sequence[str]) -> None:
  """Empties a stage's directory, but for the names in `keep`."""
  # First: half a stage must never pass for a finished one.
  (directory / 'DONE').unlink(missing_ok=True)
  for path in directory.iterdir():
    if path.name in keep:
      continue
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()


def _begin(
  directory: pathlib.Path,
  name: str,
  make_key: Callable[[], dict],
  force: bool,
  keep: Sequence[str],
) -> tuple[str, dict]:
  """Returns what is to be done and the key; of a finished stage its summary."""
  key = make_key()
  state = _prepare(directory, name, key, force, keep)
  if state == 'skip':
    logging.info('Stage %s: finished before, skipped.', name)
    return state, files.read_json(directory / 'summary.json')
  logging.info('Stage %s: %s.', name, state)
  directory.mkdir(parents=True, exist_ok=True)
  files.write_json(directory / 'config.json', key)
  return state, key


def _end(directory: pathlib.Path, key: dict, summary: dict) -> dict:
  files.write_json(directory / 'summary.json', summary)
  files.write_json(
    directory / 'DONE', {'fingerprint': config_lib.fingerprint(key)}
  )
  return summary


def stage_seed(seed: int, name: str) -> int:
  """Folds a run's seed with a stage's name: no two stages share one."""
  return (seed * 1_000_003 + zlib.crc32(name.encode())) % 2**31


def stage(
  name: str,
  sections: Sequence[str],
  inputs: Sequence[str]
  | Callable[[ml_collections.ConfigDict], Sequence[str]] = (),
  external: Callable[[ml_collections.ConfigDict], str] | None = None,
  keep: Sequence[str] = (),
) -> Callable:
  """Decorates the body of a stage.

  Args:
    name: the stage, also the name of its directory.
    sections: keys of the config that the stage reads, beside seed and mesh.
    inputs: stages whose artifacts it reads, or what gives them.
    external: gives a hash of what the stage reads from outside the workdir.
    keep: files and folders in the stage's directory that stay when it is done
      anew, because they say themselves what they hold for.

  Returns:
    A decorator: `body(config, context) -> summary dict` becomes
    `run(config, workdir, force=False) -> summary dict`; `force` goes on from
    the checkpoints of a stage that was cut off and whose config changed.
  """

  def decorate(body: Callable) -> Callable:
    @functools.wraps(body)
    def run(
      config: ml_collections.ConfigDict, workdir, force: bool = False
    ) -> dict:
      workdir = pathlib.Path(workdir)
      directory = workdir / name

      def key() -> dict:
        read = inputs(config) if callable(inputs) else inputs
        return {
          'seed': config.seed,
          'inputs': _input_fingerprints(name, workdir, read),
          'external': external(config) if external else '',
          'config': {s: config_lib.to_dict(config[s]) for s in sections},
        }

      state, found = processes.on_first(
        _begin, directory, name, key, force, keep
      )
      if state == 'skip':
        return found
      mesh, seed = meshes.make(config), stage_seed(config.seed, name)
      tracking = writers.read(config)
      context = Context(
        name, workdir, directory, mesh, seed, found, force, tracking
      )
      started = time.monotonic()
      summary = dict(body(config, context))
      summary['seconds'] = round(time.monotonic() - started, 1)
      return processes.on_first(_end, directory, found, summary)

    return run

  return decorate
