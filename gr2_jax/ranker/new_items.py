"""A trained tokenizer applied to items that were not in its catalogue.

tokenizer = new_items.load('runs/beauty')
sids, report = tokenizer.assign(items)
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import progress, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.run import artifacts, lineage, meshes
from gr2_jax.sid import assign, growth, quantised, steps, vectors
from gr2_jax.sid.config import SidConfig
from gr2_jax.stages import sid
from gr2_jax.text import encoder
from gr2_jax.train import checkpoint

# Items that are embedded and quantised together: a part is what one machine of
# many takes, and parts are the same wherever they are computed.
PART = 4096


@dataclasses.dataclass
class Tokenizer:
  """The tokenizer of a run and the catalogue as it has grown.

  Attributes:
    config: its numbers.
    mesh: where it computes.
    scaling: of the embeddings.
    state: the trained RQ-VAE; None for residual k-means.
    books: float32 [L, C, D].
    sids: int32 [I, L], of the items so far.
    raw: int32 [I, L], the same before conflicts were resolved.
    item_ids: the items so far.
  """

  config: SidConfig
  mesh: jax.sharding.Mesh
  scaling: vectors.Scaling
  state: steps.RqvaeState | None
  books: np.ndarray
  sids: np.ndarray
  raw: np.ndarray
  item_ids: list[str]

  def nearest(self, embeddings: np.ndarray) -> np.ndarray:
    """Quantises embeddings.

    Args:
      embeddings: float [N, W].

    Returns:
      int32 [N, L], the nearest codes.
    """
    vectors.check_finite(embeddings)
    data = vectors.Embeddings(embeddings, self.scaling)
    if self.state is None:
      books = sharding.replicate(self.mesh, self.books)
      return quantised.nearest(books, data, self.mesh)
    return quantised.codes(self.state, self.config, data, self.mesh)

  def codes(
    self,
    items: Sequence[dataset_lib.Item],
    embeddings: np.ndarray | None = None,
  ) -> np.ndarray:
    """Quantises items; codes may be those of other items.

    Args:
      items: N items.
      embeddings: float [N, W]; None to embed the texts by MiniLM.

    Returns:
      int32 [N, L], the nearest codes.

    Raises:
      ValueError: vectors that do not fit the items, or none where the run had
        its own.
    """
    if embeddings is not None:
      if len(embeddings) != len(items):
        raise ValueError(
          f'{len(embeddings)} embeddings for {len(items)} items.'
        )
      return self.nearest(embeddings)
    self._check_texts()
    starts = progress.bar(
      range(0, len(items), PART), desc='new items', unit='part'
    )
    with progress.hidden():
      found = [
        self.nearest(self._embed(items[start : start + PART]))
        for start in starts
      ]
    return np.concatenate(found)

  def _check_texts(self) -> None:
    """Refuses to embed texts where the run had vectors of its own."""
    if self.config.embeddings:
      raise ValueError(
        f'The semantic IDs of this run come from vectors of its own '
        f'({self.config.embeddings}), which texts do not give: make a '
        'catalogue by launch.new_items --embeddings=VECTORS.'
      )

  @functools.cached_property
  def _embed(self) -> Callable[[Sequence[dataset_lib.Item]], np.ndarray]:
    return sid.embedder(self.config, self.mesh)

  def distinct(
    self,
    items: Sequence[dataset_lib.Item],
    codes: np.ndarray,
    taken: np.ndarray,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Gives new items SIDs that nobody has.

    In a run whose last level is Sinkhorn's, colliding newcomers draw an unused
    last code: a transport over all would move IDs that exist.

    Args:
      items: N items.
      codes: int32 [N, L], their nearest codes.
      taken: int32 [I, L], the SIDs of the catalogue.

    Returns:
      int32 [N, L] each: before conflicts are resolved, and after.
    """
    last_level = self.config.last_level
    return growth.extend(
      taken,
      codes,
      growth.content_keys([encoder.item_text(item) for item in items]),
      self.config.codes,
      'random' if last_level == 'sinkhorn' else last_level,
    )

  def add(
    self,
    items: Sequence[dataset_lib.Item],
    sids: np.ndarray,
    raw: np.ndarray | None = None,
  ) -> None:
    """Adds items whose SIDs are known to the catalogue.

    Args:
      items: N items.
      sids: int32 [N, L].
      raw: int32 [N, L], before conflicts were resolved; as `sids` by default.
    """
    self.sids = np.concatenate([self.sids, sids])
    self.raw = np.concatenate([self.raw, sids if raw is None else raw])
    self.item_ids = [*self.item_ids, *(item.item_id for item in items)]

  def assign(
    self,
    items: Sequence[dataset_lib.Item],
    embeddings: np.ndarray | None = None,
    quantise: Callable[[Sequence[dataset_lib.Item]], np.ndarray] | None = None,
  ) -> tuple[np.ndarray, dict]:
    """Gives new items SIDs and adds them to the catalogue.

    Args:
      items: N new items.
      embeddings: float [N, W]; None to embed the texts by MiniLM.
      quantise: does what `codes` does with texts, elsewhere.

    Returns:
      (int32 [N, L], report). The report has `items` and `collisions` of the
      catalogue so far, its `uniqueness` before conflicts were resolved, and
      `moved`: how many of the new items had to leave their prefix.

    Raises:
      ValueError: no items, an item that the catalogue has, by name, or vectors
        that do not fit the items.
    """
    if not items:
      raise ValueError('No new items: the file has none.')
    known = set(self.item_ids)
    again = [item.item_id for item in items if item.item_id in known]
    if again:
      raise ValueError(
        f'{len(again)} items are in the catalogue already: {again[:20]}. Leave '
        'them out; their semantic IDs stay.'
      )
    if quantise is None:
      codes = self.codes(items, embeddings)
    else:
      self._check_texts()
      codes = quantise(items)
    raw, new = self.distinct(items, codes, self.sids)
    self.add(items, new, raw)
    return new, {
      'items': len(self.sids),
      'uniqueness': assign.uniqueness(self.raw),
      'collisions': assign.collisions(self.sids),
      'moved': int((raw != new).any(1).sum()),
    }


def load(
  workdir: pathlib.Path | str, mesh: jax.sharding.Mesh | None = None
) -> Tokenizer:
  """Loads the tokenizer of a run.

  Args:
    workdir: the run's directory; its sid stage must be finished.
    mesh: where to; by default the mesh of the run's config.

  Returns:
    The tokenizer.

  Raises:
    FileNotFoundError: no run, or its sid stage is not finished.
    ValueError: the sid stage was made from other data than the run has now.
  """
  workdir = pathlib.Path(workdir).expanduser().absolute()
  config = lineage.config(workdir, 'sid')
  cfg = config_lib.build(SidConfig, config.sid)
  if mesh is None:
    mesh = meshes.make(config)
  with np.load(workdir / 'sid' / 'sids.npz') as arrays:
    stored = dict(arrays)
  items = artifacts.Artifacts(config, workdir).dataset.items
  trained = None
  if cfg.quantiser == 'rqvae':
    width = len(stored['mean'])
    trained = steps.create(cfg, len(items), width, mesh, seed=0)
    with checkpoint.Checkpointer(workdir / 'sid' / 'checkpoints') as saved:
      trained = saved.restore(trained)[0]
  return Tokenizer(
    config=cfg,
    mesh=mesh,
    scaling=vectors.Scaling(stored['mean'], float(stored['scale'])),
    state=trained,
    books=stored['books'],
    sids=stored['sids'],
    raw=stored['raw'],
    item_ids=[item.item_id for item in items],
  )
