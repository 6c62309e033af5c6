"""Runs a stage once: skips what is finished, resumes what was cut off.

A finished stage of another config is made again only where `redo` says so, and
so is one that was cut off and has checkpoints, unless `force` continues from
them: they may be hours of work, and a typing error would throw them away.

A stage writes `workdir/<stage>/`: `config.json`, its artifacts, `summary.json`
and last, atomically, `DONE` with the fingerprint of its config and inputs. Of
several processes the first one decides what is to be done, and writes.
"""

import dataclasses
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
import ml_collections
from absl import logging

from gr2_jax import config as config_lib
from gr2_jax import files, processes
from gr2_jax.run import lineage, meshes
from gr2_jax.train import profile, writers
from gr2_jax.train.retention import Policy

# What `compare` finds.
SKIP, RESUME, START = 'skip', 'resume', 'start'
REDO, CUT, CLEAR = 'redo', 'cut', 'clear'


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
    force: continue from checkpoints that were made with another config.
    tracking: how its trainings are watched, of `config.tracking`; no stage is
      made again where that changes.
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


def compare(workdir: pathlib.Path, name: str, key: dict) -> tuple[str, list]:
  """Compares a stage on disk with the key that it is to have.

  Args:
    workdir: the run's directory.
    name: the stage.
    key: from `Stage.key`.

  Returns:
    (state, what differs as `config.diff` lists it). The states are SKIP, it is
    finished; RESUME, it was cut off; START, nothing of it is there; REDO, it is
    finished with another key; CUT, it was cut off, has checkpoints, and its own
    config differs; CLEAR, it was cut off with another key otherwise.
  """
  directory = workdir / name
  done = lineage.read_done(workdir, name)
  if done == config_lib.fingerprint(key):
    return SKIP, []
  if not directory.exists():
    return START, []
  before = lineage.read_key(workdir, name)
  changed = config_lib.diff(before or {}, key)
  if done is not None:
    return REDO, changed
  if before == key:
    return RESUME, []
  own = all(k == 'seed' or k.startswith('config.') for k, *_ in changed)
  if own and any(directory.glob('checkpoints/[0-9]*')):
    return CUT, changed
  return CLEAR, changed


def refuse_cut(workdir: pathlib.Path, name: str, changed: list) -> None:
  """Raises the error of a stage in state CUT, where no flag says what to do."""
  raise ValueError(
    f'Stage {name!r} was cut off, and its config differs from that of its '
    f'checkpoints (saved -> now): {lineage.describe(changed)}. Use that '
    'config; or continue from them with the new one (--force); or start it '
    f'from the beginning (--redo), which deletes what {workdir / name} holds.'
  )


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


def _end(directory: pathlib.Path, key: dict, summary: dict) -> dict:
  files.write_json(directory / 'summary.json', summary)
  files.write_json(
    directory / 'DONE', {'fingerprint': config_lib.fingerprint(key)}
  )
  return summary


def stage_seed(seed: int, name: str) -> int:
  """Folds a run's seed with a stage's name: no two stages share one."""
  return (seed * 1_000_003 + zlib.crc32(name.encode())) % 2**31


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage: what it reads, and its body; see `stage`."""

  name: str
  body: Callable[[ml_collections.ConfigDict, Context], dict]
  sections: Sequence[str]
  inputs: Sequence[str] | Callable[[ml_collections.ConfigDict], Sequence[str]]
  external: Callable[[ml_collections.ConfigDict], str] | None
  keep: Sequence[str]
  version: int

  def reads(self, config: ml_collections.ConfigDict) -> Sequence[str]:
    """Returns the names of the stages that it reads."""
    return self.inputs(config) if callable(self.inputs) else self.inputs

  def key(
    self,
    config: ml_collections.ConfigDict,
    inputs: Mapping[str, str],
    external: str | None = None,
  ) -> dict:
    """Returns what the stage is made of, as its `config.json` holds it.

    Args:
      config: a whole config.
      inputs: stage that it reads to fingerprint.
      external: the hash of what it reads from outside, where that is known; by
        default it is computed.

    Raises:
      FileNotFoundError: what it reads from outside is not there.
    """
    if external is None:
      external = self.external(config) if self.external else ''
    return {
      'seed': config.seed,
      'inputs': {name: inputs[name] for name in self.reads(config)},
      'external': external,
      'config': {s: config_lib.to_dict(config[s]) for s in self.sections},
      **({'version': self.version} if self.version > 1 else {}),
    }

  def __call__(
    self,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    force: bool = False,
    redo: bool = False,
  ) -> dict:
    """Runs the stage, unless it is finished.

    Args:
      config: a whole config.
      workdir: the run's directory.
      force: continue from the checkpoints of a stage that was cut off and whose
        config changed.
      redo: make it again where its config or what it read changed.

    Returns:
      Its summary.

    Raises:
      FileNotFoundError: a stage that it reads is not finished.
      ValueError: it would have to be made again, or its checkpoints belong to
        another config.
    """
    workdir = pathlib.Path(workdir)
    directory = workdir / self.name
    state, found = processes.on_first(self._begin, config, workdir, force, redo)
    if state == SKIP:
      return found
    mesh, seed = meshes.make(config), stage_seed(config.seed, self.name)
    tracking = writers.read(config)
    context = Context(
      self.name,
      workdir,
      directory,
      mesh=mesh,
      seed=seed,
      key=found,
      force=force,
      tracking=tracking,
    )
    started = time.monotonic()
    summary = dict(self.body(config, context))
    summary['seconds'] = round(time.monotonic() - started, 1)
    return processes.on_first(_end, directory, found, summary)

  def _begin(
    self,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    force: bool,
    redo: bool,
  ) -> tuple[str, dict]:
    """Returns the state and the key; of a finished stage its summary."""
    directory = workdir / self.name
    inputs = {
      name: self.find_input(workdir, name) for name in self.reads(config)
    }
    key = self.key(config, inputs)
    state, changed = compare(workdir, self.name, key)
    if state == SKIP:
      logging.info('Stage %s: finished before, skipped.', self.name)
      profile.note_skipped(writers.read(config).profile, directory)
      return state, files.read_json(directory / 'summary.json')
    if state == CUT and not (force or redo):
      refuse_cut(workdir, self.name, changed)
    if state == CUT:
      state = RESUME if force else CLEAR
    if state == REDO and not redo:
      raise ValueError(
        f'Stage {self.name!r} in {workdir} is finished, and would be made '
        f'again because of (saved -> now) {lineage.describe(changed)}. Use the '
        'config it was made with, another --workdir, or --redo, which deletes '
        'what it wrote.'
      )
    if state in (REDO, CLEAR):
      logging.warning(
        'Stage %s: what it wrote is deleted, because of %s.',
        self.name,
        lineage.describe(changed),
      )
      _clear(directory, self.keep)
    state = {REDO: START, CLEAR: START}.get(state, state)
    logging.info('Stage %s: %s.', self.name, state)
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(directory / 'config.json', key)
    return state, key

  def find_input(self, workdir: pathlib.Path, name: str) -> str:
    """Returns the fingerprint of a stage that it reads.

    Raises:
      FileNotFoundError: that stage is not finished.
    """
    found = lineage.read_done(workdir, name)
    if found is None:
      raise FileNotFoundError(
        f'Stage {self.name!r} reads {workdir / name}, which is not finished '
        f'(no DONE in it). Run the stage {name!r} first, or leave --stages out.'
      )
    return found


def stage(
  name: str,
  sections: Sequence[str],
  inputs: Sequence[str]
  | Callable[[ml_collections.ConfigDict], Sequence[str]] = (),
  external: Callable[[ml_collections.ConfigDict], str] | None = None,
  *,
  keep: Sequence[str] = (),
  version: int = 1,
) -> Callable[[Callable], Stage]:
  """Decorates the body of a stage.

  Args:
    name: the stage, also the name of its directory.
    sections: keys of the config that the stage reads, beside seed and mesh.
    inputs: stages whose artifacts it reads, or what gives them.
    external: gives a hash of what the stage reads from outside the workdir.
    keep: files and folders in the stage's directory that stay when it is made
      again: they are valid for any config.
    version: goes up where the same config gives artifacts of another meaning:
      those of an older version are refused, or made again with `--redo`.

  Returns:
    A decorator: `body(config, context) -> summary dict` becomes a `Stage`,
    which is called as `run(config, workdir, force=False, redo=False)`.
  """
  return lambda body: Stage(
    name,
    body,
    sections,
    inputs=inputs,
    external=external,
    keep=keep,
    version=version,
  )
