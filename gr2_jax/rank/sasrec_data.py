"""Training windows and padded batches of SASRec."""

from collections.abc import Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import padding
from gr2_jax.data import splits as splits_lib


class Histories:
  """Training windows as a source of `pipeline.lm_iterator`.

  A history longer than T is cut from its end into windows that overlap in one
  item, so that every item but the first is a target exactly once.
  """

  def __init__(
    self,
    dataset: dataset_lib.Dataset,
    splits: splits_lib.Splits,
    length: int,
  ):
    """Cuts `sequence[:train_end]` of each user into windows of T = `length`."""
    self._dataset = dataset
    self._windows = [
      (user, max(end - length, 0), end)
      for user, train_end in enumerate(splits.train_end)
      for end in range(train_end, 1, 1 - length)
    ]
    self.places = sum(end - start for _, start, end in self._windows)

  def __len__(self) -> int:
    """Returns the number of windows."""
    return len(self._windows)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """Returns one window: every item but its first is a target."""
    user, start, end = self._windows[index]
    weights = np.ones(end - start, np.float32)
    weights[0] = 0.0
    return {
      'tokens': self._dataset.sequence(user)[start:end],
      'weights': weights,
    }


def pad(
  histories: Sequence[np.ndarray],
  max_length: int,
  nothing: int,
  exclude_seen: bool,
) -> dict[str, np.ndarray]:
  """Pads histories to one of few shapes, for one compilation each.

  Args:
    histories: B arrays of item indices, oldest first, none empty.
    max_length: T at most; of longer histories the last items count.
    nothing: index that names no item.
    exclude_seen: whether 'seen' holds the histories, or nothing.

  Returns:
    'tokens' int32 [B, T] right-padded with item 0, 'lengths' int32 [B], and
    'seen' int32 [B, E], the whole histories, padded with `nothing`.
  """
  recent = [np.asarray(history)[-max_length:] for history in histories]
  lengths = np.array([len(history) for history in recent], np.int32)
  seen = histories if exclude_seen else [()] * len(histories)
  return {
    'tokens': padding.stack(recent, _width(lengths.max(), max_length), 0),
    'lengths': lengths,
    'seen': padding.stack(seen, _power(max(map(len, seen))), nothing),
  }


def widths(max_length: int) -> tuple[int, ...]:
  """Returns the lengths to which `pad` brings histories, ascending."""
  found = {_width(n, max_length) for n in range(1, max_length + 1)}
  return tuple(sorted(found))


def _width(length: int, most: int) -> int:
  return min(_power(length), most)


def _power(length: int) -> int:
  """Returns a power of two, from 8 on."""
  return max(8, 1 << (int(length) - 1).bit_length()) if length else 1
