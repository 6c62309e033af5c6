import hypothesis
import numpy as np
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.rank import sasrec_data


def _source(lengths, window):
  flat = np.arange(sum(lengths))
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  dataset = dataset_lib.from_sequences(
    'counted',
    [dataset_lib.Item(str(i), '') for i in flat],
    {f'{u:03}': flat[offsets[u] : offsets[u + 1]] for u in range(len(lengths))},
  )
  splits = splits_lib.make(
    dataset, splits_lib.SplitConfig(kind='last_n', n_test=1, n_train=0)
  )
  return sasrec_data.Histories(dataset, splits, window), dataset, splits


def test_windows_overlap_in_one_item():
  source, _, _ = _source([9], 4)  # trains on items 0..6
  windows = [source[i]['tokens'].tolist() for i in range(len(source))]
  assert windows == [[3, 4, 5, 6], [0, 1, 2, 3]]
  assert source.places == 8
  assert source[0]['weights'].tolist() == [0, 1, 1, 1]


@hypothesis.given(
  st.lists(st.integers(4, 40), min_size=1, max_size=5), st.integers(2, 9)
)
@hypothesis.settings(deadline=None, max_examples=50)
def test_each_item_is_a_target_once_and_no_held_out_one_is(lengths, window):
  source, dataset, splits = _source(lengths, window)
  targets = []
  for i in range(len(source)):
    example = source[i]
    assert len(example['tokens']) <= window
    targets += example['tokens'][example['weights'] > 0].tolist()
  expected = [
    item
    for user in range(dataset.num_users)
    for item in dataset.sequence(user)[1 : splits.train_end[user]]
  ]
  assert sorted(targets) == expected


def test_pad_keeps_the_last_items_and_all_the_seen():
  found = sasrec_data.pad([np.arange(12), np.array([5])], 8, 99, True)
  assert found['tokens'].tolist() == [list(range(4, 12)), [5] + [0] * 7]
  assert found['lengths'].tolist() == [8, 1]
  assert found['seen'].shape == (2, 16)
  assert found['seen'][1].tolist() == [5] + [99] * 15
  found = sasrec_data.pad([np.arange(3)], 8, 99, False)
  assert found['seen'].tolist() == [[99]]
