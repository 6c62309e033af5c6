"""The lists that RL trains on, as batches of few shapes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gr2_jax.data import padding, pipeline
from gr2_jax.decode import items
from gr2_jax.rl.rollout import PromptBatch


@dataclasses.dataclass(frozen=True)
class PromptSet:
  """Candidate lists that hold their target, with their prompts.

  Attributes:
    prompts: N token lists.
    candidates: int32 [N, K] item indices in pre-rank order, -1 pads at the end.
    sids: int32 [I, L], of the catalogue.
    target: int32 [N], 0-based place of the true item.
    pad: id that fills prompts up.
    buckets: lengths that prompts are padded to, rising; empty for one bucket,
      the longest prompt rounded up to 32.
    grades: int32 [N, K], what each candidate is worth, 0 for nothing; None for
      one-hot at the target.
    features: float32 [N, K, F], evidence columns; None for no column.
    histories: N token lists, the direct prompts beside explained ones; None
      where `prompts` are the direct ones.
    citable: int32 [N, M], the items that explanations may cite, which the
      prompts show, -1 pads; None for the candidates alone.
  """

  prompts: Sequence[Sequence[int]]
  candidates: np.ndarray
  sids: np.ndarray
  target: np.ndarray
  pad: int
  buckets: tuple[int, ...] = ()
  grades: np.ndarray | None = None
  features: np.ndarray | None = None
  citable: np.ndarray | None = None
  histories: Sequence[Sequence[int]] | None = None

  def __post_init__(self):
    """Checks that there are lists, with targets, that fit the buckets."""
    if not len(self.prompts):
      raise ValueError(
        'No candidate list holds its target: RL has nothing to train on. '
        'Improve the retriever or raise candidates.k.'
      )
    if self.target.min() < 0:
      raise ValueError(
        'A list does not hold its target (target < 0): pass `lists.hits()`.'
      )
    if self.grades is None:
      one_hot = np.arange(self.candidates.shape[1]) == self.target[:, None]
      object.__setattr__(self, 'grades', one_hot.astype(np.int32))
    if self.features is None:
      none = np.zeros((*self.candidates.shape, 0), np.float32)
      object.__setattr__(self, 'features', none)
    if self.citable is None:
      object.__setattr__(self, 'citable', self.candidates)
    longest = max(map(len, self.prompts))
    if not self.buckets:
      object.__setattr__(self, 'buckets', (padding.round_up(longest),))
    if self.buckets[-1] < longest:
      raise ValueError(
        f'The longest prompt has {longest} tokens, the last bucket '
        f'{self.buckets[-1]}: add a bucket to rl.prompt_buckets.'
      )

  def __len__(self) -> int:
    """Returns the number of lists N."""
    return len(self.prompts)

  @property
  def ids(self) -> int:
    """A, the most ids that a place of an answer may be limited to."""
    return items.allowed_ids(self.candidates.shape[1], self.citable.shape[1])

  def bucket(self, length: int) -> int:
    """Returns the smallest bucket that holds `length` tokens."""
    return next(size for size in self.buckets if size >= length)

  def batch(self, rows: np.ndarray) -> PromptBatch:
    """Gathers lists, their prompts padded to the bucket of the longest.

    Args:
      rows: int [Q], which lists.

    Returns:
      A PromptBatch of NumPy arrays.
    """
    chosen = [self.prompts[row] for row in rows]
    length = self.bucket(max(map(len, chosen)))
    prompt, valid = padding.batch(chosen, length, self.pad)
    candidates, citable = self.candidates[rows], self.citable[rows]
    history, history_valid = self._history(rows)
    return PromptBatch(
      prompt=prompt,
      prompt_valid=valid,
      candidate_sids=self.sids[np.maximum(candidates, 0)].astype(np.int32),
      candidate_mask=candidates >= 0,
      citable_sids=self.sids[np.maximum(citable, 0)].astype(np.int32),
      citable_mask=citable >= 0,
      target=self.target[rows].astype(np.int32),
      grades=self.grades[rows].astype(np.int32),
      row=rows.astype(np.int32),
      features=self.features[rows].astype(np.float32),
      history=history,
      history_valid=history_valid,
    )

  def _history(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if self.histories is None:
      empty = np.zeros((len(rows), 0), np.int32)
      return empty, empty.astype(bool)
    longest = max(map(len, self.histories))
    length = padding.round_up(longest)
    chosen = [self.histories[row] for row in rows]
    return padding.batch(chosen, length, self.pad)


class RoundIterator:
  """Endless batches for RL steps: the lists of each possible round.

  A step that is satisfied earlier leaves its last rounds unused, so that the
  place in the data depends on the step alone, not on what the buffer held.
  """

  def __init__(
    self, prompts: PromptSet, per_round: int, rounds: int, seed: int
  ):
    """Starts at the first step.

    Args:
      prompts: the lists.
      per_round: prompts a round.
      rounds: how many rounds a step may take.
      seed: of the order.
    """
    self._prompts = prompts
    self._rounds = rounds
    self._rows = pipeline.index_iterator(len(prompts), per_round * rounds, seed)

  def __iter__(self) -> 'RoundIterator':
    return self

  def __next__(self) -> tuple[PromptBatch, ...]:
    """Returns the lists of each round of the next step."""
    parts = np.split(next(self._rows), self._rounds)
    return tuple(self._prompts.batch(rows) for rows in parts)

  def get_state(self) -> Any:
    """Returns the place in the data, JSON-able."""
    return self._rows.get_state()

  def set_state(self, state: Any) -> None:
    """Goes back to a state of `get_state`."""
    self._rows.set_state(state)
