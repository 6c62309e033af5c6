import dataclasses

import numpy as np
import pytest

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import stored

ITEMS = [
  dataset_lib.Item('a', 'A', ('x', 'y'), 'b', 5.04, description='d'),
  dataset_lib.Item('b', 'B'),
  dataset_lib.Item('c', 'C'),
]


def _dataset():
  return dataset_lib.from_sequences(
    'test', ITEMS, {'v': [2, 0, 1], 'u': [], 't': [1]}
  )


def test_sequences_are_by_user_in_order_of_the_ids():
  dataset = _dataset()
  assert dataset.user_ids == ['t', 'u', 'v']
  np.testing.assert_array_equal(dataset.offsets, [0, 1, 1, 4])
  np.testing.assert_array_equal(dataset.lengths, [1, 0, 3])
  np.testing.assert_array_equal(dataset.sequence(2), [2, 0, 1])
  np.testing.assert_array_equal(dataset.sequence(1), [])
  np.testing.assert_array_equal(dataset.times(2), [0, 1, 2])
  assert dataset.flat.dtype == np.int32
  assert dataset.counts == {'users': 3, 'items': 3, 'interactions': 4}


def test_the_hash_is_of_the_content():
  dataset = _dataset()
  assert dataset.sha256 == _dataset().sha256
  assert dataset.sha256 == dataclasses.replace(dataset, name='x').sha256
  items = [dataclasses.replace(ITEMS[0], price=5.05), *ITEMS[1:]]
  slate = dataset_lib.Slate(0, 1, (0,), (1,))
  others = [
    dataclasses.replace(dataset, items=items),
    dataclasses.replace(dataset, user_ids=['t', 'u', 'w']),
    dataclasses.replace(dataset, flat=dataset.flat[::-1]),
    dataclasses.replace(dataset, timestamps=dataset.timestamps + 1),
    dataclasses.replace(dataset, offsets=np.array([0, 1, 2, 4])),
    dataclasses.replace(dataset, slates=[slate]),
    *(
      dataclasses.replace(
        dataset,
        slates=[dataclasses.replace(slate, columns=((number,),))],
        slate_columns=(name,),
      )
      for number, name in ((1.0, 'a'), (2.0, 'a'), (1.0, 'b'))
    ),
  ]
  assert len({dataset.sha256, *(other.sha256 for other in others)}) == 10


def test_the_hash_of_slates_without_columns_is_the_one_of_old():
  """Data sets that were written before there were columns are still read."""
  made = dataset_lib.from_sequences('n', ITEMS[1:], {'u': [0, 1, 0]})
  made = dataclasses.replace(
    made,
    items=[dataset_lib.Item('a', 'A'), dataset_lib.Item('b', 'B')],
    slates=[dataset_lib.Slate(0, 2, (1, 0), (0, 1))],
  )
  assert made.sha256 == (
    '5fc6a22935246ed357c7e8a832eb4e33f4cc714d90af3dc3aae68565005045ff'
  )


def test_sequences_must_fit_the_catalogue_and_the_times():
  with pytest.raises(ValueError, match="'u' has an item index outside of 0..2"):
    dataset_lib.from_sequences('test', ITEMS, {'u': [0, 3]})
  with pytest.raises(ValueError, match='2 items and 1 timestamps'):
    dataset_lib.from_sequences('test', ITEMS, {'u': [0, 1]}, {'u': [5]})


def test_a_missing_data_set_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='run the stage data'):
    stored.load(tmp_path)
