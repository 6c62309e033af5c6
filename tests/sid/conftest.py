"""Vectors that a small tokenizer can learn."""

import numpy as np
import pytest

from gr2_jax.sid import vectors as vectors_lib


@pytest.fixture(scope='session')
def vectors():
  """90 items: 6 topics of 3 dimensions in 12, with noise."""
  rng = np.random.default_rng(0)
  topics = rng.normal(size=(6, 3)) @ rng.normal(size=(3, 12))
  noise = 0.3 * rng.normal(size=(90, 12))
  return vectors_lib.scaled(np.repeat(topics, 15, 0) + noise)[:]
