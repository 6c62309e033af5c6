"""Sizes by counts: near the known configs, and by hand."""

import numpy as np
import pytest

from configs import beauty, quickstart
from gr2_jax import config as config_lib
from gr2_jax.data import counting, splits
from gr2_jax.run import size_rules

# Shapes of the known data: users of few and of many interactions.
MOVIELENS = counting.Counts(1682, np.repeat([20, 40, 65, 120, 300], 189))
BEAUTY = counting.Counts(12_101, np.repeat([5, 6, 7, 9, 17], 4473))


@pytest.mark.parametrize(
  'counts, known, but',
  [
    (MOVIELENS, quickstart, {'data.split.n_train': 40}),
    (BEAUTY, beauty, {}),
  ],
)
def test_known_data_get_the_sizes_of_their_configs(counts, known, but):
  flat = config_lib.flatten(known.get_config())
  found = size_rules.sizes(counts)
  for name, value in found.items():
    if name in but:
      assert value == pytest.approx(flat[name], rel=0.05)
    else:
      assert value == flat[name], name


def test_splits_hold_out_by_hand():
  # 6,000 / 500 test positions a user, and an eighth of the median is 5.
  counts = counting.Counts(400, np.full(500, 40))
  found = size_rules.sizes(counts)
  # Ten of forty stay with the retriever: 40 - 5 - 2 - 10.
  expected = splits.SplitConfig('last_n', n_test=5, n_valid=2, n_train=23)
  for name in ('kind', 'n_test', 'n_valid', 'n_train'):
    assert found[f'data.split.{name}'] == getattr(expected, name)
