"""Co-engaged items: by hand, and never from what is held out."""

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.sid import pairs


def test_partners_by_hand():
  sequences = [np.array([0, 1, 2]), np.array([1, 0, 0]), np.array([3])]
  near = pairs.partners(sequences, 5, window=1, most=2)
  # 0-1 twice, 1-2 once; an item is no partner of itself.
  np.testing.assert_array_equal(
    near, [[1, -1], [0, 2], [1, -1], [-1, -1], [-1, -1]]
  )
  far = pairs.partners(sequences, 5, window=2, most=2)
  # And 0-2 once, 1-0 once more.
  np.testing.assert_array_equal(far[:3], [[1, 2], [0, 2], [0, 1]])


def test_nothing_held_out_is_read():
  items = [dataset_lib.Item(f'i{i}', f't{i}', ()) for i in range(20)]
  found = []
  for seed in (1, 2):
    held = np.random.default_rng(seed)
    rng = np.random.default_rng(0)
    sequences = {
      f'u{u}': [*rng.permutation(20)[:6].tolist(), *held.permutation(20)[:3]]
      for u in range(15)
    }
    made = dataset_lib.from_sequences('held', items, sequences)
    splits = splits_lib.make(made, splits_lib.SplitConfig())
    assert (splits.train_end == 6).all()
    found.append(
      pairs.partners(
        [made.sequence(u)[:end] for u, end in enumerate(splits.train_end)],
        20,
        window=2,
      )
    )
  np.testing.assert_array_equal(*found)
  assert (found[0] >= 0).any()
