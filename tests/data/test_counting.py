import numpy as np
import pytest

from gr2_jax.data import counting, dataset, splits


def _dataset(items, lengths):
  made = [dataset.Item(f'i{i}', '') for i in range(items)]
  sequences = {f'u{u:03d}': [0] * n for u, n in enumerate(lengths)}
  return dataset.from_sequences('mine', made, sequences)


def test_counts_by_hand():
  counts = counting.count(_dataset(40, [4] * 29 + [2, 9, 40]))
  assert (counts.items, counts.users, counts.interactions) == (40, 32, 167)
  assert counts.median == 4
  split = splits.SplitConfig('last_n', n_test=2, n_valid=1, n_train=3)
  # Of four interactions one stays for the retriever: two, one and none; of two
  # interactions one is left to test.
  expected = {'train': 6, 'valid': 31, 'test': 63}
  assert counts.positions(split) == expected
  made = splits.make(_dataset(40, counts.lengths), split)
  assert {k: len(users) for k, (users, _) in made.examples.items()} == expected


def test_what_is_too_little_is_named():
  with pytest.raises(ValueError, match="'mine' has 29 items .* below 30"):
    counting.count(_dataset(29, [9] * 50))
  with pytest.raises(ValueError, match='Of 60 users of .* 10 have 4 or more'):
    counting.count(_dataset(40, np.repeat([3, 4], [50, 10])))
