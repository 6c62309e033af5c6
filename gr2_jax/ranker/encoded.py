"""Histories that a ranker read once, and any number of candidates scored.

users = reranker.encode(histories)
users.score(candidates)      # as often as lists come in

The direct prompt holds the history alone, so what was read of it serves every
list of its user.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.lm import config as lm_config
from gr2_jax.rank import heads, utilities
from gr2_jax.run import artifacts


@dataclasses.dataclass(frozen=True)
class Encoded:
  """N histories, as keys and values.

  Attributes:
    config: shape of the model.
    params: {'lm', 'head'} on `mesh`.
    mesh: the mesh.
    store: the run's artifacts.
    histories: N arrays of item indices, oldest first.
    read: of the prompts, filled up to fit the mesh.
    padded: lists of item indices -> int32 [N, K], -1 pads.
    columns: (histories, candidates int32 [N, K], features, scores) -> evidence
      columns float32 [N, K, F].
  """

  config: lm_config.LMConfig
  params: Any
  mesh: jax.sharding.Mesh
  store: artifacts.Artifacts
  histories: Sequence[np.ndarray]
  read: utilities.Read
  padded: Callable[[Sequence[np.ndarray]], np.ndarray]
  columns: Callable[..., np.ndarray]

  def score(
    self,
    candidates: Sequence[np.ndarray],
    features: Sequence[np.ndarray] | None = None,
    scores: Sequence[np.ndarray | None] | None = None,
  ) -> list[np.ndarray]:
    """Computes the utilities of candidates; sorted, they are the ranking.

    Args:
      candidates: item indices, one list a history, of 1 or more.
      features: float32 [k, E] of each list, as in `Ranker.rank`.
      scores: float32 [k] of each list, as in `Ranker.rank`.

    Returns:
      float32 [k] of each list.

    Raises:
      ValueError: another number of lists than of histories, or an empty list.
    """
    if len(candidates) != len(self.histories):
      raise ValueError(
        f'{len(candidates)} lists for {len(self.histories)} histories; give '
        'one list a history.'
      )
    if not min(map(len, candidates)):
      raise ValueError('A list has no candidate; give one or more.')
    padded = self.padded(candidates)
    columns = self.columns(self.histories, padded, features, scores)
    sids = self.store.sids[np.maximum(padded, 0)]
    batch = padding.fill((sids, columns), len(self.read.valid))
    sids, columns = sharding.shard_batch(self.mesh, batch)
    with sharding.use(self.mesh, sharding.DECODE_RULES):
      logps = utilities.logps_after(
        self.config,
        self.store.vocab.answer_format(),
        self.params['lm'],
        self.read,
        sids,
      )
      values = heads.utilities(self.params['head'], heads.FULL, logps, columns)
    values = sharding.fetch(self.mesh, values)
    return [
      row[: len(items)] for row, items in zip(values, candidates, strict=False)
    ]


def encode(
  config: lm_config.LMConfig,
  params: Any,
  mesh: jax.sharding.Mesh,
  store: artifacts.Artifacts,
  histories: Sequence[np.ndarray],
  *,
  padded: Callable[[Sequence[np.ndarray]], np.ndarray],
  columns: Callable[..., np.ndarray],
) -> Encoded:
  """Reads the direct prompts of histories; see `Encoded` for the arguments."""
  written = [store.prompter.retrieval(history) for history in histories]
  batch = padding.batch(written, _width(store, written), store.vocab.pad)
  size = padding.batch_size(mesh, len(written), 2 * len(written))
  batch = sharding.shard_batch(mesh, padding.fill(batch, size))
  with sharding.use(mesh, sharding.DECODE_RULES):
    read = utilities.read(config, params['lm'], *batch)
  return Encoded(
    config,
    params,
    mesh,
    store,
    histories=histories,
    read=read,
    padded=padded,
    columns=columns,
  )


def _width(store: artifacts.Artifacts, written: Sequence[list[int]]) -> int:
  """Returns the length to which a batch of prompts is padded."""
  most = np.zeros(store.prompter.cfg.retrieval_items, np.int32)
  longest = len(store.prompter.retrieval(most))
  return padding.width(max(map(len, written)), longest)


def warm_up(
  encode: Callable[[Sequence[np.ndarray]], Encoded],
  store: artifacts.Artifacts,
  users: Iterable[int],
  counts: Iterable[int],
) -> None:
  """Compiles what reading and scoring take.

  Args:
    encode: reads histories.
    store: the run's artifacts.
    users: numbers of histories, one for each shape.
    counts: numbers of candidates, likewise.
  """
  # A prompt is as long as its history, whatever the items are.
  by_width = {}
  for length in range(store.prompter.cfg.retrieval_items + 1):
    history = np.zeros(length, np.int32)
    width = _width(store, [store.prompter.retrieval(history)])
    by_width[width] = history
  for number, history in itertools.product(users, by_width.values()):
    read = encode([history] * number)
    for count in counts:
      own = np.zeros((count, len(store.user_columns)), np.float32)
      candidates = np.zeros(count, np.int32)
      read.score([candidates] * number, [own] * number)
