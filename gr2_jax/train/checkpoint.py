"""Checkpoints of everything that a resumed run needs, by Orbax.

A checkpoint is one composite item: `state`, a tree of arrays, and `extra`, the
manifest (`manifest.py`): the place in the data, what the loop keeps, and what
they were made with, which is the config with its seeds (with the state's step
they give every random number) and the version of the code.

Orbax notices some damage and misses other (a flipped bit inside an array), so
the manifest has a hash of itself and a checksum of every array.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from gr2_jax import processes
from gr2_jax.train import manifest, retention
from gr2_jax.train.retention import Policy


def _brief(error: Exception) -> str:
  """Returns both ends of a message; TensorStore's are pages long."""
  text = ' '.join(str(error).split())
  return text if len(text) < 400 else f'{text[:250]} ... {text[-150:]}'


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
  """Calls damaged what cannot be read: Orbax raises all kinds of exceptions."""
  try:
    yield
  except (manifest.Damaged, MemoryError, jax.errors.JaxRuntimeError):
    raise
  except Exception as error:
    raise manifest.Damaged(f'{what} cannot be read: {_brief(error)}') from error


class Checkpointer:
  """Saves and restores (state, iterator state, meta) by step.

  Writing continues in the background while the caller computes. A checkpoint
  appears under its final name only when it is complete, so a crash leaves the
  one before. Use as a context manager, or call `close`.
  """

  def __init__(self, directory: pathlib.Path, policy: Policy | None = None):
    """Opens a directory of checkpoints.

    Args:
      directory: made if it is missing; what a crash left half is removed.
      policy: which stay, and what they must agree with.
    """
    self._directory = pathlib.Path(directory).absolute()
    self._policy = policy or Policy()
    self._writing = None
    self._told = False
    self._scores: dict[int, float] = {}
    policies = ocp.checkpoint_managers
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [policies.LatestN(self._policy.keep), retention.Best(self._scores)]
        ),
        create=True,
        cleanup_tmp_directories=True,
        # Reads no file of a checkpoint here, where damage would be an error.
        lightweight_initialize=True,
      ),
    )
    self._scores.update(self._read_scores() if self._policy.best else {})

  @property
  def latest(self) -> int | None:
    """Step of the latest complete checkpoint, or None; waits for a save."""
    self.wait()
    return self._manager.latest_step()

  def ranked(self) -> list[int]:
    """Returns the steps that have a score, best first; waits for a save."""
    self.wait()
    steps = self._manager.all_steps()
    return processes.on_first(retention.ranked, self._scores, steps)

  def save(
    self,
    step: int,
    state: Any,
    iterator_state: Any = None,
    meta: Any = None,
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Copies what is to be written, and writes it in the background.

    The arrays may be donated as soon as this returns. A save before it is
    waited for.

    Args:
      step: updates done.
      state: any pytree of arrays, e.g. a TrainState.
      iterator_state: of the data iterator; JSON-able or bytes.
      meta: JSON-able.
      metrics: numbers by name, for the policy's best.

    Raises:
      ValueError: a checkpoint of this or a later step exists.
      OSError: this or the save before it failed, e.g. for want of space.
    """
    self.wait()
    score = self._policy.score(metrics or {})
    extra = manifest.make(state, iterator_state, meta, score, self._policy)
    if score is not None:
      self._scores[step] = score
    with self._explained(step):
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(extra)
        ),
      )
    if not saved:
      raise ValueError(
        f'{self._directory} holds step {self.latest}, so step {step} cannot '
        'be written: restore first, or use another directory.'
      )
    self._writing = step

  def wait(self) -> None:
    """Waits until what `save` began is on disk.

    Raises:
      OSError: it could not be written; names path and free space.
    """
    if self._writing is not None:
      step, self._writing = self._writing, None
      with self._explained(step):
        self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _explained(self, step: int) -> Iterator[None]:
    """Describes a failure to write: where, and what is left."""
    try:
      yield
    except Exception as error:
      free = shutil.disk_usage(self._directory).free
      names = [path.name for path in self._directory.iterdir()]
      kept = max((int(name) for name in names if name.isdigit()), default=None)
      left = 'there is none before it' if kept is None else f'{kept} is intact'
      raise OSError(
        f'Checkpoint {step} could not be written to {self._directory}, where '
        f'{free / 2**20:,.0f} MiB are free: {_brief(error)}. Of those before '
        f'it, {left}. Make room, or fix what the error names, and run the same '
        'command again.'
      ) from error

  def restore(
    self, like: Any, steps: Sequence[int] | None = None
  ) -> tuple[Any, Any, Any] | None:
    """Reads the latest checkpoint; where that is damaged, the one before.

    Damaged ones are renamed to `STEP.damaged`, with a warning.

    Args:
      like: a tree of arrays, or of their shapes, whose shapes, types and
        shardings (on whatever mesh) the restored state takes.
      steps: which to try, in this order, such as `ranked()`; None for all, the
        latest first.

    Returns:
      (state, iterator state, meta), or None where there is no checkpoint.

    Raises:
      ValueError: it was made with another config (unless the policy forces it)
        or holds other arrays, with each difference; or all are damaged.
    """
    self.wait()
    damaged: dict[int, manifest.Damaged] = {}
    if steps is None:
      steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        body = self._manifest(step)
        path = self._directory / str(step)
        manifest.check(path, body, like, self._policy)
        state = self._state(step, body, like)
      except manifest.Damaged as error:
        damaged[step] = error
        continue
      for bad, error in damaged.items():
        logging.warning(
          'Checkpoint %s is damaged (%s): continuing from step %d. The damaged '
          'one is kept as %d.damaged.',
          self._directory / str(bad),
          error,
          step,
          bad,
        )
      self._set_aside(list(damaged))
      if not self._told:
        manifest.check_code(path, body)
        self._told = True
      return state, body['iterator'], body['meta']
    if damaged:
      found = '; '.join(f'{step}: {error}' for step, error in damaged.items())
      raise ValueError(
        f'Every checkpoint in {self._directory} is damaged ({found}). Restore '
        'the folder from a copy, or remove it to start over.'
      )
    return None

  def _read_scores(self) -> dict[int, float]:
    """Reads which checkpoints have a score."""
    found = {}
    for step in self._manager.all_steps():
      try:
        found[step] = self._manifest(step)['score']
      except manifest.Damaged as error:
        path = self._directory / str(step)
        logging.warning('%s does not count as the best: %s.', path, error)
    return {step: score for step, score in found.items() if score is not None}

  def _manifest(self, step: int) -> dict[str, Any]:
    """Reads what stands beside the state."""
    with _reading('its manifest'):
      found = self._manager.restore(
        step, args=ocp.args.Composite(extra=ocp.args.JsonRestore())
      )
      return manifest.parse(found['extra'])

  def _state(self, step: int, body: Mapping, like: Any) -> Any:
    """Reads the arrays, and compares their checksums."""
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      like,
    )
    with _reading('its state'):
      state = self._manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
      )['state']
    manifest.compare(body, state)
    return state

  def _set_aside(self, steps: Sequence[int]) -> None:
    """Renames checkpoints, so that their steps can be saved again."""
    if not steps:
      return
    for step in steps if jax.process_index() == 0 else ():
      path = self._directory / f'{step}.damaged'
      shutil.rmtree(path, ignore_errors=True)
      os.rename(self._directory / str(step), path)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('checkpoints set aside')
    self._manager.reload()

  def close(self) -> None:
    """Waits for the last save and ends Orbax's threads."""
    try:
      self.wait()
    finally:
      self._manager.close()

  def __enter__(self) -> 'Checkpointer':
    return self

  def __exit__(self, *exc: Any) -> None:
    self.close()
