"""The LM as a retriever: beam search over many prompts in few shapes.

Prompts are sorted into buckets of their padded length and of the padded number
of items to leave out, and searched a fixed number at a time: one compilation a
bucket, and little padding. A bucket that few prompts share joins the next.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.decode import beam
from gr2_jax.lm import config as lm_config
from gr2_jax.sid import index as sid_index
from gr2_jax.text import answer

# Batches that make a bucket worth a compilation of its own; on two cores these
# take about as long as it does.
_WORTH = 16
# Results that may be under way on the device before the host waits for one.
_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Retriever:
  """A decoder that finds items.

  Attributes:
    config: shape of the model.
    params: its parameters, on `mesh`.
    mesh: the mesh.
    index: of the catalogue's SIDs, whole on every device of `mesh`.
    fmt: the answer format, with the ids of the SID tokens.
    width: W of the beam search.
    batch_size: prompts searched at a time; divides by the mesh.
  """

  config: lm_config.LMConfig
  params: Any
  mesh: jax.sharding.Mesh
  index: sid_index.PrefixIndex
  fmt: answer.AnswerFormat
  width: int
  batch_size: int

  def __post_init__(self):
    parts = sharding.batch_parts(self.mesh)
    if self.batch_size < 1 or self.batch_size % parts:
      raise ValueError(
        f'A retrieval batch of {self.batch_size} prompts does not divide by '
        f'the {parts} devices that share it: change candidates.batch_size or '
        'config.mesh.'
      )

  def top_k(
    self,
    prompts: Sequence[Sequence[int]],
    k: int,
    exclude: Sequence[np.ndarray],
  ) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k best items for each prompt.

    Args:
      prompts: N lists of token ids, each ending where a SID begins.
      k: length of each list, at most the width.
      exclude: N arrays of items that may not be returned.

    Returns:
      items int32 [N, k], best first, and their log-probabilities float32
      [N, k]; -1 and -inf where there are no more items.

    Raises:
      ValueError: k is above the width of the beam.
    """
    if k > self.width:
      raise ValueError(
        f'A beam of width {self.width} cannot give lists of {k} items: raise '
        'candidates.width.'
      )
    items = np.full((len(prompts), k), -1, np.int32)
    scores = np.full((len(prompts), k), -np.inf, np.float32)
    waiting = collections.deque()

    def collect() -> None:
      rows, found = waiting.popleft()
      found = jax.device_get(found)
      items[rows], scores[rows] = (x[: len(rows), :k] for x in found)

    pairs = zip(prompts, exclude, strict=True)
    shapes = [bucket(len(prompt), len(left_out)) for prompt, left_out in pairs]
    for shape, rows in padding.by_shape(shapes, self.batch_size, _WORTH):
      waiting.append((rows, self._search(prompts, exclude, rows, shape)))
      if len(waiting) > _AHEAD:
        collect()
    while waiting:
      collect()
    return items, scores

  def _search(
    self,
    prompts: Sequence[Sequence[int]],
    exclude: Sequence[np.ndarray],
    rows: np.ndarray,
    shape: tuple[int, int],
  ) -> tuple[jax.Array, jax.Array]:
    """Starts the search for one batch; rows that are missing are empty.

    Returns:
      Items and scores, whole on every device.
    """
    seen, length = shape
    nothing = [()] * (self.batch_size - len(rows))
    chosen = [prompts[row] for row in rows] + nothing
    tokens, valid = padding.batch(chosen, length, self.fmt.pad)
    seen_items = [exclude[row] for row in rows] + nothing
    left_out = padding.stack(seen_items, seen, -1)
    tokens, valid, left_out = sharding.shard_batch(
      self.mesh, (tokens, valid, left_out)
    )
    with sharding.use(self.mesh, sharding.DECODE_RULES):
      found = beam.beam_search(
        self.config,
        self.params,
        tokens,
        valid,
        self.index,
        fmt=self.fmt,
        width=self.width,
        exclude=left_out,
      )
    return sharding.replicate(self.mesh, found)


def bucket(prompt_length: int, num_excluded: int) -> tuple[int, int]:
  """Returns the padded sizes (excluded items E, prompt tokens P) of a prompt.

  E is 16, 128, 1024, ..: leaving out more costs little, compiling much.
  """
  seen = 16
  while seen < num_excluded:
    seen *= 8
  return seen, padding.round_up(prompt_length)
