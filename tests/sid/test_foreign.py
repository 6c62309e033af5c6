"""The default tokenizer on catalogues that it was not tuned on.

Embeddings of 384 dimensions, from none to much structure, even and uneven.
"""

import numpy as np
import pytest

from configs import common
from gr2_jax import config as config_lib
from gr2_jax.sid import assign, codebook, quantised, train, vectors
from gr2_jax.sid.config import SidConfig

WIDTH = 384


def _gaussian(rng):
  return rng.normal(size=(5000, WIDTH))


def _topics(rng, items, noise):
  """200 topics whose sizes go from 17 % of the items to 0.2 %."""
  topics = rng.normal(size=(200, WIDTH))
  topic = (200 * rng.random(items) ** 3).astype(int)
  return topics[topic] + noise * rng.normal(size=(items, WIDTH))


def _duplicates(rng):
  x = _topics(rng, 7000, 0.5)
  return x[np.r_[np.arange(7000), rng.integers(0, 7000, 3000)]]


@pytest.mark.slow
@pytest.mark.parametrize(
  'make',
  [
    _gaussian,
    lambda rng: _topics(rng, 10_000, 0.2),
    lambda rng: _topics(rng, 1000, 0.5),
    _duplicates,
  ],
  ids=['no structure', 'uneven topics', 'few items', 'duplicates'],
)
def test_the_default_is_unique_and_even(make, mesh1, tmp_path):
  config = config_lib.build(SidConfig, common.base().sid)
  x = make(np.random.default_rng(0)).astype(np.float32)
  data = vectors.scaled(x)
  trained = train.fit(data, config, mesh1, tmp_path, 0)
  found = quantised.infer(trained, config, data, mesh1)
  raw, sids = assign.assign(found.codes, config.codes, 0)
  use = codebook.perplexity(codebook.usage(found.codes, config.codes))
  print(assign.uniqueness(raw), np.round(np.array(use) / config.codes, 3))
  assert assign.uniqueness(raw) >= 0.995
  assert assign.collisions(sids) == 0
  assert min(use) >= 0.7 * config.codes
