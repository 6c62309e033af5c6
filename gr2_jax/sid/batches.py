"""Training batches of embeddings: read from disk by Grain, block by block.

Letters: I items, W width of the embedding, M partners, S steps a block,
B items a step.
"""

import dataclasses
import functools
from typing import Protocol

import grain
import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import order as order_lib
from gr2_jax.sid.config import SidConfig

# Vectors in a block, which goes to the devices at once.
_BLOCK_VECTORS = 8192


class Vectors(Protocol):
  """Embeddings that are read by row; float32 [I, W]."""

  shape: tuple[int, int]

  def __len__(self) -> int:
    """Returns I."""

  def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
    """Returns float32 [rows, W]."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """How an epoch is cut, so that all blocks have one shape.

  Attributes:
    blocks: blocks an epoch.
    steps: S; the last block is filled up from the beginning of the epoch.
  """

  blocks: int
  steps: int

  @classmethod
  def make(cls, config: SidConfig, items: int) -> 'Plan':
    """Cuts an epoch over `items` items."""
    steps = -(-items // config.batch_size)
    most = max(1, _BLOCK_VECTORS // config.batch_size)
    blocks = -(-steps // most)
    return cls(blocks, -(-steps // blocks))


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
  """A Grain source whose element n is block n of the run.

  Orders and draws are functions of (seed, epoch), so any block can be made
  alone and a resumed run sees what an undisturbed one does.

  Attributes:
    vectors: the embeddings, scaled.
    config: epochs and batch size.
    seed: of orders and draws.
    partners: int32 [I, M], positives of the contrastive term, -1 pads; None
      without it.
    own: int [n], the rows of a block that this process reads; the vectors of
      the others are left zero. None for all.
  """

  vectors: Vectors
  config: SidConfig
  seed: int
  partners: np.ndarray | None = None
  own: np.ndarray | None = None

  @functools.cached_property
  def plan(self) -> Plan:
    """How epochs are cut."""
    return Plan.make(self.config, len(self.vectors))

  @functools.cached_property
  def orders(self) -> order_lib.Order:
    """The order of the items in each epoch."""
    return order_lib.Order(len(self.vectors), self.seed)

  def __len__(self) -> int:
    """Returns the number of blocks of the run."""
    return self.config.epochs * self.plan.blocks

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """Returns a block by name of its arrays.

    'vectors' float32 [B * S, W]; with partners also 'items' and 'positives'
    int32 [B * S] (-1 for none), and 'partners' float32 [B * S, W], the
    positives' vectors. Step s takes rows s, s + S, ...: see `train.step.split`.
    """
    number, block = divmod(index, self.plan.blocks)
    steps, batch = self.plan.steps, self.config.batch_size
    order = self.orders[number]
    size = steps * batch
    chosen = order.take(range(block * size, (block + 1) * size), mode='wrap')
    chosen = chosen.reshape(steps, batch)
    found = {'vectors': self._read(chosen.T.reshape(-1))}
    if self.partners is not None:
      rng = np.random.default_rng([self.seed, number, block])
      positives = draw_positives(rng, self.partners, chosen)
      found['items'] = chosen.T.reshape(-1)
      found['positives'] = positives.T.reshape(-1)
      found['partners'] = self._read(np.maximum(found['positives'], 0))
    return found

  def _read(self, items: np.ndarray) -> np.ndarray:
    if self.own is None:
      return self.vectors[items]
    found = np.zeros((len(items), self.vectors.shape[1]), np.float32)
    found[self.own] = self.vectors[items[self.own]]
    return found


def draw_positives(
  rng: np.random.Generator, partners: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
  """Draws one partner of each item.

  Args:
    rng: of the draws.
    partners: int32 [I, M]; -1 pads.
    chosen: int [...], items.

  Returns:
    int32 [...]; -1 for items without any partner.
  """
  rows = partners[chosen]
  count = (rows >= 0).sum(-1)
  place = (rng.random(count.shape) * count).astype(np.int64)
  drawn = np.take_along_axis(rows, place[..., None], axis=-1)[..., 0]
  return np.where(count > 0, drawn, -1).astype(np.int32)


def iterate(blocks: Blocks) -> grain.DatasetIterator:
  """Reads blocks ahead of the devices; its state is the place in the run."""
  return iter(
    grain.MapDataset.source(blocks).to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    )
  )


def source(
  vectors: Vectors,
  config: SidConfig,
  seed: int,
  partners: np.ndarray | None,
  mesh: jax.sharding.Mesh | None = None,
) -> Blocks:
  """Returns the blocks; see `Blocks`.

  Given a mesh of several processes, the vectors of other processes' devices are
  not read.

  Raises:
    ValueError: the contrastive term is on without partners or off with them.
  """
  if bool(config.contrastive) != (partners is not None):
    given = 'missing' if partners is None else 'given'
    raise ValueError(
      f'sid.contrastive = {config.contrastive} and partners {given}: the term '
      'needs them, and nothing else does.'
    )
  own = None
  if mesh is not None and jax.process_count() > 1:
    steps = Plan.make(config, len(vectors)).steps
    own = sharding.own_rows(mesh, steps * config.batch_size)
  return Blocks(vectors, config, seed, partners, own)
