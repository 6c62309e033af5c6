"""Several endless iterators as one: a batch holds a batch of each."""

from collections.abc import Mapping
from typing import Any


class Mixed:
  """Iterates over {name: batch}; resumable as its parts are."""

  def __init__(self, parts: Mapping[str, Any]):
    """Takes the parts.

    Args:
      parts: iterators with `get_state()` and `set_state()`, by name.
    """
    self._parts = dict(parts)

  def __iter__(self) -> 'Mixed':
    return self

  def __next__(self) -> dict[str, Any]:
    """Returns the next batch of each part."""
    return {name: next(part) for name, part in self._parts.items()}

  def get_state(self) -> dict[str, Any]:
    """Returns the place in each part."""
    return {name: part.get_state() for name, part in self._parts.items()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes back to a state of `get_state`.

    Args:
      state: the state.

    Raises:
      ValueError: it is of other parts.
    """
    if set(state) != set(self._parts):
      raise ValueError(
        f'The saved place is of {sorted(state)}, the data are '
        f'{sorted(self._parts)}: continue with the settings it was saved under.'
      )
    for name, part in self._parts.items():
      part.set_state(state[name])
