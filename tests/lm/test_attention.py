"""The two mask builders, against plain loops."""

import numpy as np
import pytest

from gr2_jax.lm import attention


@pytest.mark.parametrize('packed', [False, True])
def test_causal_mask(packed):
  segments = np.array([[1, 1, 2, 2, 2, 0, 0], [3, 1, 1, 1, 0, 0, 0]])
  rows, length = segments.shape
  mask = attention.causal_mask(length, segments if packed else None)
  assert mask.shape == (rows if packed else 1, length, length)
  places = np.array([4, 2])
  single = attention.causal_mask(length, segments if packed else None, places)
  assert single.shape == (rows, 1, length)
  for b in range(rows):
    for t in range(length):
      for s in range(length):
        same = segments[b, t] == segments[b, s] or not packed
        want = s <= t and same
        assert mask[b if packed else 0, t, s] == want
        if t == places[b]:
          assert single[b, 0, s] == want


@pytest.mark.parametrize('index', [0, 3])
def test_tail_mask(index):
  mask = np.asarray(attention.tail_mask(4, 8, index))
  assert mask.shape == (4, 8)
  for t in range(4):
    for s in range(8):
      assert mask[t, s] == (s <= index + t)
