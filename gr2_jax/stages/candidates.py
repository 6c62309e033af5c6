"""Candidates: the lists that are re-ranked, and how well they were retrieved.

Writes `workdir/candidates/{train,valid,test}.npz` with N lists each: `user` and
`position` int32 [N], `candidates` int32 [N, K] best first, `scores` float32 [N,
K], `target` int32 [N], place of the true item among the candidates or -1,
`rank` int32 [N], its place among the first max(K, 10), or this number, and
`features` float32 [N, K, F], the evidence columns (`rank/evidence.py`), whose
names and units, of the training lists, are in `evidence.json`; then
`workdir/retrieval.json`, the report up to here. Lists from slates:
`stages/slates.py`; `folds.npz`: `stages/folds.py`.
"""

import shutil
import time

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, processes
from gr2_jax.data import splits as splits_lib
from gr2_jax.rank import evidence as evidence_lib
from gr2_jax.run import artifacts, reporting, runner
from gr2_jax.stages import folds, lists, retrieval, retrievers, slates

SLATES = retrievers.SLATES
CandidatesConfig = retrievers.CandidatesConfig


def _write_split(
  sources: retrievers.Sources, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Writes the lists of a split.

  Returns:
    The place of each target [N], and the items [N, n].
  """
  pairs = sources.store.splits.examples[split]
  found = lists.collect(sources, sources.cfg.source, split, *pairs)
  arrays = lists.as_lists(sources, *pairs, *found)
  _write_columns(sources, split, arrays)
  return arrays['rank'], found[0]


def _write_columns(
  sources: retrievers.Sources, split: str, arrays: dict[str, np.ndarray]
) -> None:
  """Writes lists with their columns; those to train on come first."""
  directory, evidence = sources.context.directory, sources.evidence
  columns = lists.features(sources, arrays)
  if evidence.scales is None:
    evidence.scales = evidence_lib.scales(columns, arrays['candidates'] >= 0)
    columns = evidence_lib.scaled(columns, evidence.scales)
    processes.on_first(
      files.write_json,
      directory / 'evidence.json',
      {'names': list(evidence.names), 'scales': list(evidence.scales)},
    )
  path = directory / f'{split}.npz'
  processes.on_first(files.atomic_savez, path, **arrays, features=columns)


def _retrieve_lists(sources: retrievers.Sources) -> tuple[dict, np.ndarray]:
  """Writes the lists of all splits; returns the numbers, and test's items."""
  hit_rate, sizes = {}, {}
  for split in splits_lib.NAMES:
    rank, items = _write_split(sources, split)
    sizes[split] = len(rank)
    if len(rank):
      hit_rate[split] = float((rank < sources.cfg.k).mean())
  return {'hit_rate': hit_rate, 'lists': sizes}, items


def _write_slates(sources: retrievers.Sources) -> dict:
  """Writes the lists of slates with their columns; returns the numbers."""
  directory = sources.context.directory
  block = processes.on_first(
    slates.write, sources.store, sources.cfg.k, directory
  )
  for split in splits_lib.NAMES:
    arrays = files.read_npz(directory / f'{split}.npz')
    _write_columns(sources, split, arrays)
  return {**block, 'retriever': sources.cfg.retriever}


def _make_final(
  cfg: CandidatesConfig, store: artifacts.Artifacts, context: runner.Context
) -> dict:
  """Writes the lists of the final retriever, which saw all training parts.

  Returns:
    The summary without the folds.
  """
  sources = retrievers.Sources(
    cfg,
    store,
    context,
    store.splits,
    directory=context.directory,
    seed=context.seed,
    find_model=lambda: store.model('midtrain'),
  )
  test = store.splits.examples['test']
  if cfg.source == SLATES:
    block = _write_slates(sources)
    items = lists.collect(sources, cfg.retriever, 'test', *test)[0]
  else:
    block, items = _retrieve_lists(sources)
  found = {cfg.retriever: items}
  for name in cfg.baselines:
    if name not in found:
      found[name] = lists.collect(sources, name, 'test', *test)[0]
  targets = lists.targets(store, *test)
  measured = retrieval.measure(
    found,
    cfg.retriever,
    cfg.baselines,
    targets=targets,
    store=store,
    seed=context.seed,
  )
  return {'source': cfg.source, 'k': cfg.k, **measured, **block}


# What the folds read of the sections `lm` and `midtrain` is in the fingerprint
# of mid-training, which is an input.
@runner.stage(
  'candidates',
  sections=('candidates', 'text'),
  inputs=('data', 'sid', 'midtrain'),
  version=2,
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Writes the lists of all splits and measures retrieval on the test split."""
  started = time.monotonic()
  cfg = config_lib.build(CandidatesConfig, config.candidates)
  store = artifacts.Artifacts(config, context.workdir)
  divided = folds.divide(cfg, store, context.seed)
  summary = _make_final(cfg, store, context)
  reporting.tell({k: summary[k] for k in ('lists', 'hit_rate')})
  if divided:
    summary['folds'] = folds.write(cfg, store, context, divided)
  seconds = time.monotonic() - started
  processes.on_first(retrieval.write_report, config, context, summary, seconds)
  processes.on_first(shutil.rmtree, context.directory / 'parts')
  return summary
