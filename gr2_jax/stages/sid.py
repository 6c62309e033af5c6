"""Semantic IDs: item texts to vectors to codes to distinct SIDs.

Writes `workdir/sid/`: `embeddings.npy` float32 [I, W] and the items' ids,
`embeddings.ids` (unless the config names given vectors), the RQ-VAE's
`checkpoints/` and `metrics.jsonl`, and `sids.npz` with `sids` int32 [I, L],
`raw` (before conflicts are resolved) and what the tokenizer needs for new items
(`ranker/new_items.py`): `books`, `mean` and `scale`.
"""

import pathlib
from collections.abc import Callable, Sequence

import jax
import ml_collections
import numpy as np
from absl import logging

from gr2_jax import assets, files, processes
from gr2_jax import config as config_lib
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import stored
from gr2_jax.run import artifacts, runner
from gr2_jax.sid import (
  assign,
  codebook,
  measures,
  pairs,
  quantised,
  train,
  vector_files,
  vectors,
)
from gr2_jax.sid.config import SidConfig
from gr2_jax.text import encoder


def _hash_embeddings(config: ml_collections.ConfigDict) -> str:
  """Hashes the files of precomputed vectors, if there are any."""
  path = config.sid.get('embeddings', '')
  if not path:
    return ''
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise FileNotFoundError(
      f'sid.embeddings = {path!r} is no file: correct the path, or leave it '
      'empty to embed the item texts.'
    )
  return vector_files.fingerprint(file)


def embedder(
  config: SidConfig, mesh: jax.sharding.Mesh
) -> Callable[[Sequence[dataset_lib.Item]], np.ndarray]:
  """Loads MiniLM.

  Args:
    config: length and batch of the texts.
    mesh: the mesh.

  Returns:
    I items -> vectors of their texts, float32 [I, 384].
  """
  bert, params, tokenizer = encoder.load(
    assets.fetch('minilm'), config.bf16_matmul
  )

  def embed(items: Sequence[dataset_lib.Item]) -> np.ndarray:
    return encoder.embed(
      [encoder.item_text(item) for item in items],
      bert,
      params,
      tokenizer,
      mesh,
      max_length=config.max_length,
      batch_tokens=config.embed_tokens,
    )

  return embed


def _embeddings(
  config: SidConfig, context: runner.Context, dataset: dataset_lib.Dataset
) -> np.ndarray | vector_files.Rows:
  """Returns float [I, W], from an interrupted run where that has it."""
  if config.embeddings:
    return vector_files.read(config.embeddings, dataset)
  path = context.directory / 'embeddings.npy'
  if not processes.on_first(path.exists):
    found = embedder(config, context.mesh)(dataset.items)
    ids = ''.join(f'{item.item_id}\n' for item in dataset.items)
    processes.on_first(files.atomic_write, vector_files.ids_path(path), ids)
    processes.on_first(files.atomic_save, path, found)
  return vectors.read(path)


def _quantise(
  cfg: SidConfig,
  config: ml_collections.ConfigDict,
  context: runner.Context,
  data: vectors.Embeddings,
) -> quantised.Quantised:
  """Trains the quantiser and applies it to all items."""
  mesh = context.mesh
  if cfg.quantiser == 'kmeans':
    return quantised.kmeans(data, cfg, mesh, context.seed)
  partners = None
  if cfg.contrastive:
    store = artifacts.Artifacts(config, context.workdir)
    ends = enumerate(store.splits.train_end)
    partners = pairs.partners(
      [store.dataset.sequence(user)[:end] for user, end in ends],
      store.dataset.num_items,
      cfg.contrastive_window,
    )
  trained = train.fit(
    data,
    cfg,
    mesh,
    context.directory,
    context.seed,
    partners=partners,
    policy=context.policy(),
    tracking=context.tracking,
  )
  return quantised.infer(trained, cfg, data, mesh)


def _agreement(
  sids: np.ndarray, items: Sequence[dataset_lib.Item], levels: range
) -> list[float | None]:
  """Shared leaves by length of prefix; None (JSON has no NaN) where none."""
  found = [measures.agreement(sids, items, n) for n in levels]
  return [None if np.isnan(x) else round(x, 4) for x in found]


@runner.stage(
  'sid', sections=('sid',), inputs=('data',), external=_hash_embeddings
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Makes the SIDs.

  Of the summary, `mse` is per component (1 is what the mean vector reaches) and
  `agreement` holds the shared leaf categories under prefixes of 0 (chance), 1
  and 2 levels.
  """
  cfg = config_lib.build(SidConfig, config.sid)
  dataset = stored.load(context.input('data'))
  data = vectors.scaled(_embeddings(cfg, context, dataset))
  found = _quantise(cfg, config, context, data)
  nearest = found.codes
  raw, sids = assign.assign(
    nearest,
    cfg.codes,
    context.seed,
    cfg.last_level,
    last=found.last,
    book=found.books[-1],
  )
  processes.on_first(
    files.atomic_savez,
    context.directory / 'sids.npz',
    sids=sids,
    raw=raw,
    books=found.books,
    **data.scaling._asdict(),
  )
  counts = codebook.usage(nearest, cfg.codes)
  summary = {
    'uniqueness': assign.uniqueness(raw),
    'collisions': assign.collisions(sids),
    'perplexity': [round(x, 2) for x in codebook.perplexity(counts)],
    'dead_codes': codebook.dead_codes(counts),
    'mse': found.mse,
    'uniqueness_nearest': assign.uniqueness(nearest),
    'moved': int((raw != sids).any(1).sum()),
    'agreement': _agreement(sids, dataset.items, range(3)),
  }
  logging.info('Semantic IDs: %s', summary)
  return summary
