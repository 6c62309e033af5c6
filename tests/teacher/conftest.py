"""A small catalogue with a rules teacher over it; importable helpers."""

import itertools

import numpy as np
import pytest

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.teacher import rationale, rules
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

THEMES = ('Drama', 'Comedy', 'Horror', 'Space')
ITEMS = [
  dataset_lib.Item(
    f'i{i}',
    f'Film {"AB"[i % 2] * 3} {i}',
    ('Film', THEMES[i % 4]),
    brand=('Fox', 'WB', '')[i % 3],
  )
  for i in range(24)
]
SIDS = np.stack([np.arange(24) // 5, np.arange(24) % 5], axis=1)


class World:
  """Data, splits, vocabulary, and `teacher(**weights)`."""

  def __init__(self, last=(1, 2, 3)):
    rng = np.random.default_rng(0)
    sequences = {
      f'u{u}': [*rng.permutation(24)[:9].tolist(), *last] for u in range(12)
    }
    self.dataset = dataset_lib.from_sequences('world', ITEMS, sequences)
    self.splits = splits_lib.make(self.dataset, splits_lib.SplitConfig())
    self.sids = SIDS
    # Enough pieces that themes are short enough to be named.
    lines = itertools.chain(wording.corpus(ITEMS), rationale.corpus())
    self.vocab = vocab_lib.Vocab.train(lines, 540, levels=2, codes=5)

  def teacher(self, explanation_tokens=60, **weights):
    return rules.RulesTeacher(
      self.dataset,
      self.splits,
      self.sids,
      self.vocab,
      history_items=4,
      explanation_tokens=explanation_tokens,
      cfg=rules.RulesConfig(**weights),
    )


@pytest.fixture(scope='session')
def world():
  return World()


@pytest.fixture(scope='session')
def other_world():
  """The same, but for what is held out."""
  return World((21, 22, 23))
