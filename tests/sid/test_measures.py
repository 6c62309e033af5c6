"""Neighbourhood agreement by hand."""

import numpy as np
import pytest

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.sid import measures

ITEMS = [
  dataset_lib.Item('a', 'a', ('Root', 'X')),
  dataset_lib.Item('b', 'b', ('Root', 'X')),
  dataset_lib.Item('c', 'c', ('Other', 'Y')),
  dataset_lib.Item('d', 'd', ('X',)),
  dataset_lib.Item('e', 'e', ()),
]
SIDS = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1]])


def test_agreement_by_hand():
  # Of three with code 0: a sees b (same) and c; b alike; c none of two. d has
  # only e for a neighbour, which has no leaf.
  assert measures.agreement(SIDS, ITEMS, 1) == pytest.approx((0.5 + 0.5) / 3)
  assert measures.agreement(SIDS, ITEMS, 2) == pytest.approx(1.0)
  # All four together: a, b and d see two of three, c none.
  assert measures.agreement(SIDS, ITEMS, 0) == pytest.approx(2 / 3 * 3 / 4)


def test_nobody_has_a_neighbour():
  apart = np.arange(5)[:, None]
  assert np.isnan(measures.agreement(apart, ITEMS, 1))
  assert np.isnan(measures.agreement(SIDS[:1], ITEMS[4:], 1))
