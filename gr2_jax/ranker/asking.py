"""Lists with their prompts, in few shapes."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from gr2_jax.data import padding
from gr2_jax.ranker import ranking
from gr2_jax.rl.rollout import PromptBatch
from gr2_jax.run import artifacts


@dataclasses.dataclass(frozen=True)
class Asking:
  """Puts lists together with their prompts.

  Attributes:
    store: gives catalogue, semantic IDs, vocabulary and prompts.
    mesh: where batches lie.
    mode: how they are answered, one of `ranking.MODES`.
    by_utilities: whether by utilities.
  """

  store: artifacts.Artifacts
  mesh: jax.sharding.Mesh
  mode: str
  by_utilities: bool

  @property
  def longest(self) -> int | None:
    """The most candidates of a list; None where prompts show none."""
    return None if self.unbounded else self.store.prompter.cfg.max_candidates

  @property
  def unbounded(self) -> bool:
    """Whether prompts show no candidate, so that lists have any length."""
    return self.by_utilities and self.mode == ranking.DIRECT

  @property
  def with_direct(self) -> bool:
    """Whether there are direct prompts beside explained ones."""
    return self.by_utilities and self.mode == ranking.EXPLAINED

  @property
  def citable(self) -> int:
    """Items that an explanation may cite; direct answers write nothing."""
    return 1 if self.unbounded else self.store.prompter.cfg.citable_items

  @functools.cached_property
  def longest_prompts(self) -> tuple[int, int]:
    """Tokens of the longest prompts, and of direct ones beside them."""
    prompter = self.store.prompter
    most = np.zeros(prompter.cfg.retrieval_items, np.int32)
    direct = len(prompter.retrieval(most))
    if self.unbounded:
      return direct, 0
    return direct + prompter.cfg.max_tokens, direct

  def asked(
    self,
    histories: Sequence[np.ndarray],
    padded: np.ndarray,
    shown: Sequence[np.ndarray],
  ) -> ranking.Asked:
    """Puts lists together with their prompts.

    Args:
      histories: N arrays of item indices, oldest first.
      padded: int32 [N, K], of `padded`.
      shown: the candidates of each list in the order that prompts show.
    """
    prompter, direct = self.store.prompter, None
    longest, longest_direct = self.longest_prompts
    if self.unbounded:
      written = [prompter.retrieval(history) for history in histories]
      citable = np.full((len(written), 1), -1, np.int32)
    else:
      pairs = list(zip(histories, shown, strict=True))
      written = [prompter.rerank(*pair) for pair in pairs]
      citable = np.stack([prompter.citable(*pair) for pair in pairs])
    if self.with_direct:
      direct = [prompter.retrieval(history) for history in histories]
    return ranking.Asked(
      written=written,
      longest=longest,
      citable=citable,
      padded=padded,
      direct=direct,
      longest_direct=longest_direct,
    )

  def width(self, longest: int) -> int:
    """Returns K, to which lists are padded.

    Args:
      longest: candidates of the longest one.
    """
    width = self.store.prompter.cfg.max_candidates
    return width if longest <= width else 1 << (longest - 1).bit_length()

  def padded(self, candidates: Sequence[np.ndarray]) -> np.ndarray:
    """Returns lists as int32 [N, K], -1 pads.

    Args:
      candidates: N arrays of item indices.
    """
    width = self.width(max(map(len, candidates)))
    return padding.stack(candidates, width, -1)

  def numbers(
    self,
    padded: np.ndarray,
    features: Sequence[np.ndarray] | None,
    scores: Sequence[np.ndarray | None] | None,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers that lists carry, 0 where there is none.

    Args:
      padded: int32 [N, K], of `padded`.
      features: float32 [k, E] of each list, or None.
      scores: float32 [k] or None of each list, or None.

    Returns:
      (scores float32 [N, K], features float32 [N, K, E]).

    Raises:
      ValueError: lists without the columns that those of the run have.
    """
    names = self.store.user_columns
    if names and features is None:
      raise ValueError(
        f'The lists of this run bring the columns {list(names)}: give them as '
        '`features`.'
      )
    given = np.zeros(padded.shape, np.float32)
    for row, own in zip(given, scores or (), strict=False):
      if own is not None:
        row[: len(own)] = own
    extra = np.zeros((*padded.shape, len(names)), np.float32)
    for row, own in zip(extra, features or (), strict=False):
      row[: len(own)] = own
    return given, extra

  def empty(
    self, size: int, count: int, width: int, columns: int
  ) -> PromptBatch:
    """Returns a batch of a shape, of lists without candidates.

    Args:
      size: Q, lists.
      count: K, candidates that there is room for.
      width: P, tokens of the prompts.
      columns: F, evidence columns.
    """
    longest, direct = self.longest_prompts
    asked = ranking.Asked(
      written=[[self.store.vocab.bos] * width] * size,
      longest=longest,
      citable=np.full((size, self.citable), -1, np.int32),
      padded=np.full((size, count), -1, np.int32),
      direct=[[self.store.vocab.bos]] * size if self.with_direct else None,
      longest_direct=direct,
    )
    empty = np.zeros((size, count, columns), np.float32)
    return asked.batch(range(size), empty, size, self.store, self.mesh)
