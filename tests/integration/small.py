"""The artifacts of a run over a made-up catalogue, held in memory."""

import pathlib

import jax
import ml_collections
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder
from gr2_jax.stages import artifacts, ranker
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {i}', (('Drama', 'Comedy')[i % 2],))
  for i in range(20)
]
K = 4


def dataset() -> dataset_lib.Dataset:
  """Twelve users with eight items each."""
  rng = np.random.default_rng(1)
  sequences = {f'u{u:02d}': rng.permutation(20)[:8] for u in range(12)}
  return dataset_lib.from_sequences('made-up', ITEMS, sequences)


def sids() -> np.ndarray:
  """Semantic IDs of two levels with five codes."""
  return np.stack([np.arange(20) // 5, np.arange(20) % 5], axis=1)


def store(workdir: pathlib.Path) -> artifacts.Artifacts:
  """Artifacts whose parts need no files."""
  config = ml_collections.ConfigDict(
    {
      'data': {'split': {}},
      'text': {'prompt': {'max_candidates': K, 'max_tokens': 128}},
    }
  )
  made = artifacts.Artifacts(config, workdir)
  # Where `cached_property` would keep what it reads.
  made.__dict__['dataset'] = dataset()
  made.__dict__['sids'] = sids().astype(np.int32)
  made.__dict__['vocab'] = vocab_lib.Vocab.train(
    wording.corpus(ITEMS), 400, levels=2, codes=5
  )
  return made


def make_ranker(
  workdir: pathlib.Path, mesh: jax.sharding.Mesh, constrain: bool
) -> ranker.Ranker:
  """A ranker whose model was never trained."""
  parts = store(workdir)
  shape = lm_config.LMConfig(
    vocab_size=parts.vocab.size,
    width=32,
    layers=1,
    heads=2,
    kv_heads=2,
    head_dim=16,
    mlp_dim=32,
  )
  params = decoder.init(shape, mesh, sharding.DECODE_RULES, jax.random.key(0))
  answer = ranker.AnswerConfig(24, 6, constrain)
  return ranker.Ranker(shape, params, mesh, parts, answer)
