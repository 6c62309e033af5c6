"""Candidate lists for histories that are given by item id: the LM retrieves.

finder = rerank.load_retriever('runs/quickstart')
lists = finder.lists([['50', '172']])
ranked = rerank.rank_records(reranker, lists)
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from gr2_jax import assets
from gr2_jax import config as config_lib
from gr2_jax.decode import retrieve
from gr2_jax.ranker import catalogues, grown
from gr2_jax.run import artifacts, meshes
from gr2_jax.stages import retrievers


@dataclasses.dataclass(frozen=True)
class Finder:
  """Finds the items that are likely to come next.

  Attributes:
    store: catalogue, semantic IDs and prompts.
    retriever: the mid-trained model, over this catalogue.
    exclude_seen: leaves out the items of the history.
  """

  store: artifacts.Artifacts
  retriever: retrieve.Retriever
  exclude_seen: bool

  def lists(
    self, histories: Sequence[Sequence[str]], k: int = 10
  ) -> list[dict]:
    """Returns a list for each history, as re-ranking reads it.

    Args:
      histories: item ids of each user, oldest first.
      k: candidates a list, at most `candidates.width` of the run.

    Returns:
      Dicts with `history`, without unknown items, `candidates` (item ids, the
      likeliest first) and `scores`, their log-probabilities.

    Raises:
      ValueError: k above the width of the beam.
    """
    index, items = self.store.dataset.index, self.store.dataset.items
    known = [[i for i in history if i in index] for history in histories]
    rows = [np.array([index[i] for i in x], np.int32) for x in known]
    prompts = [self.store.prompter.retrieval(row) for row in rows]
    seen = [row if self.exclude_seen else row[:0] for row in rows]
    found, scores = self.retriever.top_k(prompts, k, seen)
    return [
      {
        'history': history,
        'candidates': [items[i].item_id for i in row[row >= 0]],
        'scores': values[row >= 0].tolist(),
      }
      for history, row, values in zip(known, found, scores, strict=True)
    ]


def load(
  workdir: pathlib.Path | str,
  mesh: jax.sharding.Mesh | None = None,
  catalogue: pathlib.Path | str | None = None,
) -> Finder:
  """Loads the retriever of a run.

  Args:
    workdir: the run's directory.
    mesh: where to; by default the mesh of the run's config.
    catalogue: what `launch.new_items` wrote; its items are found like others.

  Returns:
    The retriever.

  Raises:
    FileNotFoundError: there is no run, or its candidates are not finished.
    ValueError: a catalogue of another run, or stages that do not belong
      together.
  """
  assets.keep_programs()
  store = artifacts.open_run(workdir, 'candidates')
  if mesh is None:
    mesh = meshes.make(store.config)
  if catalogue is not None:
    store = grown.grow_store(store, *catalogues.read_for(catalogue, store))
  cfg = config_lib.build(retrievers.CandidatesConfig, store.config.candidates)
  made = retrievers.make_lm(store, mesh, store.model('midtrain'), cfg)
  return Finder(store, made, cfg.exclude_seen)
