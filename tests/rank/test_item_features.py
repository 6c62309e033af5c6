"""Shared features and the order of buying, by hand."""

import numpy as np
import pytest
import scipy.sparse

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.rank import item_features

ITEMS = [
  dataset_lib.Item('a', 'Star Wars of 1977', ('Film', 'Space'), 'Fox'),
  dataset_lib.Item('b', 'A STAR is born', ('Film', 'Drama'), 'WB'),
  dataset_lib.Item('c', 'Alien', ('Film', 'Space'), 'Fox'),
  dataset_lib.Item('d', 'Heat', ('Film',)),
]


def test_features_are_what_at_least_two_items_share():
  found = item_features.features(ITEMS)
  # 'Film' is everywhere and says nothing; 'Drama' and 'WB' belong to one item.
  names = set(zip(found.kinds, found.names, strict=True))
  assert names == {('category', 'Space'), ('brand', 'Fox'), ('word', 'Star')}
  # Each is on two of four items: log 2, halved for a word.
  weight = dict(zip(found.names, found.rarity.tolist(), strict=True))
  assert weight['Space'] == weight['Fox'] == pytest.approx(np.log(2))
  assert weight['Star'] == pytest.approx(np.log(2) / 2)
  assert sorted(found.names[f] for f in found.of(2)) == ['Fox', 'Space']
  assert found.of(3).size == 0


def test_rows_have_length_one_or_zero():
  matrix = item_features.features(ITEMS).matrix
  # float32 sums of three squares: a few units in the last place.
  np.testing.assert_allclose(
    (matrix.toarray() ** 2).sum(axis=1), [1, 1, 1, 0], atol=1e-6
  )


def test_order_by_hand():
  sequences = [np.array([0, 1, 2]), np.array([0, 1]), np.array([3])]
  order = item_features.order(sequences, 4, window=2)
  expected = np.zeros((4, 4))
  expected[0, 1] = 2
  expected[1, 2] = 1
  expected[0, 2] = 0.5
  np.testing.assert_array_equal(order.counts.toarray(), expected)
  # Rows sum to 2.5 and 1, columns to 2 and 1.5.
  np.testing.assert_allclose(
    order.matrix.toarray()[0],
    [0, 2 / np.sqrt(2.5 * 2), 0.5 / np.sqrt(2.5 * 1.5), 0],
    rtol=1e-6,
  )


def test_information_by_hand():
  sequences = [np.array([0, 1, 2]), np.array([0, 1]), np.array([3])]
  order = item_features.order(sequences, 4, window=2)
  # Item 1 follows item 0 twice where chance gives 2.5 * 2 / 3.5; the pair
  # (1, 2) was not seen twice; nothing comes before item 0.
  np.testing.assert_allclose(
    order.information(np.array([3, 0, 1]), 1),
    [0, np.log(2 / (2.5 * 2 / 3.5)), 0],
    rtol=1e-6,
  )
  np.testing.assert_array_equal(order.information(np.array([1]), 2), [0])
  # Less than that is enough, or too little.
  np.testing.assert_allclose(
    order.information(np.array([1, 0]), 2, least=1),
    [np.log(1 / (1 * 1.5 / 3.5)), 0],
    rtol=1e-6,
  )
  np.testing.assert_array_equal(order.information(np.array([0]), 1, 2.5), [0])
  np.testing.assert_array_equal(order.information(np.array([1, 2]), 0), [0, 0])


def test_an_empty_history_of_sales_is_no_error():
  order = item_features.order([np.array([1])], 3, window=3)
  assert order.counts.nnz == 0
  np.testing.assert_array_equal(order.information(np.array([0, 1]), 2), [0, 0])


def test_entries_are_those_of_the_rows():
  rng = np.random.default_rng(0)
  dense = rng.random((6, 7)) * (rng.random((6, 7)) < 0.5)
  dense[2] = 0
  rows = np.array([4, 2, 4, 0])
  place, column, value = item_features.entries(
    scipy.sparse.csr_matrix(dense), rows
  )
  found = np.zeros((4, 7))
  found[place, column] = value
  np.testing.assert_array_equal(found, dense[rows])
  assert len(value) == np.count_nonzero(dense[rows])


def test_new_items_have_the_features_that_old_ones_share():
  found = item_features.features(ITEMS)
  new = [
    dataset_lib.Item('e', 'star BORN Trek', ('Space', 'Drama')),
    dataset_lib.Item('f', 'Unheard', ('Film',)),
    dataset_lib.Item('a2', ITEMS[0].title, ITEMS[0].categories, 'Fox'),
  ]
  grown = found.grown(new)
  assert sorted(grown.names[f] for f in grown.of(4)) == ['Space', 'Star']
  assert grown.of(5).size == 0
  matrix = grown.matrix.toarray()
  np.testing.assert_array_equal(matrix[:4], found.matrix.toarray())
  # A double has the row of the first one; Space weighs twice as much as Star.
  np.testing.assert_allclose(matrix[6], matrix[0], rtol=1e-6)
  expected = dict(zip(grown.names, matrix[4].tolist(), strict=True))
  assert expected['Space'] == pytest.approx(2 / np.sqrt(5))
  assert expected['Star'] == pytest.approx(1 / np.sqrt(5))


def test_rows_are_standardised_without_their_padding():
  scores = np.array([[1, 2, 6, 9], [4, 4, 9, 9]], np.float32)
  real = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
  found = item_features.standardise(scores, real)
  # Mean 3, variance (4 + 1 + 9) / 3.
  expected = np.array([-2, -1, 3, 0]) / np.sqrt(14 / 3)
  # float32 sums of three squares: a few units in the last place.
  np.testing.assert_allclose(found[0], expected, rtol=1e-6)
  np.testing.assert_array_equal(found[1], 0)
  # To the bit: a list's scores do not depend on the longest one beside it.
  rng = np.random.default_rng(0)
  row = rng.random((1, 9), np.float32)
  wide = np.pad(row, ((0, 0), (0, 30)), constant_values=-1)
  short, long = (
    item_features.standardise(x, np.arange(x.shape[1])[None] < 9)
    for x in (row, wide)
  )
  np.testing.assert_array_equal(short, long[:, :9])


def test_pad():
  padded = item_features.pad([np.array([3, 4]), np.array([], int)])
  np.testing.assert_array_equal(padded, [[3, 4], [-1, -1]])
