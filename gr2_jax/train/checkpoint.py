"""Checkpoints of everything that a resumed run needs, by Orbax."""

import base64
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp


def _encode(state: Any) -> Any:
  """Makes an iterator state (JSON-able or bytes) JSON-able."""
  if isinstance(state, bytes):
    return {'bytes': base64.b64encode(state).decode()}
  return {'json': state}


def _decode(state: Any) -> Any:
  if 'bytes' in state:
    return base64.b64decode(state['bytes'])
  return state['json']


class Checkpointer:
  """Saves and restores (state, iterator state, meta) by step.

  A checkpoint appears under its final name only when it is complete, so a
  crash leaves the one before. Use as a context manager, or call `close`.
  """

  def __init__(self, directory: pathlib.Path, keep: int = 2):
    """Opens a directory of checkpoints.

    Args:
      directory: made if it is missing.
      keep: how many of the latest checkpoints stay.
    """
    self._directory = pathlib.Path(directory).absolute()
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, enable_async_checkpointing=False
      ),
    )

  @property
  def latest(self) -> int | None:
    """Step of the latest complete checkpoint, or None."""
    return self._manager.latest_step()

  def save(
    self, step: int, state: Any, iterator_state: Any = None, meta: Any = None
  ) -> None:
    """Writes a checkpoint and waits until it is complete.

    Args:
      step: updates done.
      state: any pytree of arrays, e.g. a TrainState.
      iterator_state: of the data iterator; JSON-able or bytes.
      meta: JSON-able.

    Raises:
      ValueError: a checkpoint of this or a later step exists.
    """
    extra = {'iterator': _encode(iterator_state), 'meta': meta}
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
    self._manager.wait_until_finished()

  def restore(self, like: Any) -> tuple[Any, Any, Any] | None:
    """Reads the latest checkpoint.

    Args:
      like: a tree of arrays whose shapes, types and shardings (on whatever
        mesh) the restored state takes.

    Returns:
      (state, iterator state, meta), or None where there is no checkpoint.
    """
    if self.latest is None:
      return None
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      like,
    )
    found = self._manager.restore(
      self.latest,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(target), extra=ocp.args.JsonRestore()
      ),
    )
    extra = found['extra']
    return found['state'], _decode(extra['iterator']), extra['meta']

  def close(self) -> None:
    """Ends Orbax's threads."""
    self._manager.close()

  def __enter__(self) -> 'Checkpointer':
    return self

  def __exit__(self, *exc: Any) -> None:
    self.close()
