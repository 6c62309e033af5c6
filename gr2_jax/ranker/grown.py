"""A ranker whose catalogue has grown since it was trained.

The model and all that it knows of the old items stay as they are. New items
have semantic IDs and texts, but no interactions, so their popularity and what
follows what are 0, and SASRec says nothing of them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.ranker import ranker
from gr2_jax.run import artifacts


def grow_store(
  store: artifacts.Artifacts,
  items: Sequence[dataset_lib.Item],
  sids: np.ndarray,
) -> artifacts.Artifacts:
  """Returns artifacts with a larger catalogue; those on disk stay as they are.

  Args:
    store: of a run.
    items: N items, whose indices are those behind the catalogue's.
    sids: int32 [N, L], their semantic IDs.
  """
  made = artifacts.Artifacts(store.config, store.workdir)
  # Where `cached_property` would keep what it reads.
  made.__dict__.update(
    vocab=store.vocab,
    dataset=dataclasses.replace(
      store.dataset, items=[*store.dataset.items, *items]
    ),
    sids=np.concatenate([store.sids, sids]),
    prompter=store.prompter.grown(items, sids),
  )
  return made


def grow(
  given: ranker.Ranker, items: Sequence[dataset_lib.Item], sids: np.ndarray
) -> ranker.Ranker:
  """Returns a ranker that knows more items; see `grow_store`.

  Args:
    given: the ranker.
    items: N items.
    sids: int32 [N, L], their semantic IDs.
  """
  store = grow_store(given.store, items, sids)
  known = given.evidence.grown(items) if given.by_utilities else None
  return dataclasses.replace(given, store=store, known=known)
