"""Ragged rows in few shapes."""

import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from gr2_jax.data import padding


def test_batch_pads_on_the_right():
  tokens, valid = padding.batch([[5, 6, 7], [8]], 4, pad=0)
  np.testing.assert_array_equal(tokens, [[5, 6, 7, 0], [8, 0, 0, 0]])
  np.testing.assert_array_equal(valid, [[1, 1, 1, 0], [1, 0, 0, 0]])
  assert tokens.dtype == np.int32 and valid.dtype == bool
  with pytest.raises(ValueError, match='Prompt 1 has 3'):
    padding.batch([[1], [1, 2, 3]], 2, pad=0)


@pytest.mark.parametrize('number, want', [(1, 32), (32, 32), (33, 64)])
def test_round_up(number, want):
  assert padding.round_up(number) == want
  assert padding.round_up(number, 1) == number


def test_stack_fills_up_on_the_right():
  found = padding.stack([np.array([3, 1]), (), [2]], 3, -1)
  np.testing.assert_array_equal(found, [[3, 1, -1], [-1] * 3, [2, -1, -1]])
  assert found.dtype == np.int32


def test_small_shapes_join_the_next_and_large_ones_stay():
  # Of 3, 2, 5 and 1 rows, where 4 make one worth while.
  lengths = [64] * 2 + [32] * 3 + [96] * 5 + [128]
  batches = padding.by_shape([(16, x) for x in lengths], 2, worth=2)
  assert [(shape, rows.tolist()) for shape, rows in batches] == [
    ((16, 64), [2, 3]),
    ((16, 64), [4, 0]),
    ((16, 64), [1]),
    ((16, 96), [5, 6]),
    ((16, 96), [7, 8]),
    ((16, 96), [9]),
    ((16, 128), [10]),
  ]


def test_what_joins_fits_both_ways():
  # The first sorts before the second, but is larger in the other axis.
  ((shape, rows),) = padding.by_shape([(128, 32), (16, 64)], 4, worth=1)
  assert shape == (128, 64) and rows.tolist() == [1, 0]


_SHAPES = strategies.lists(
  strategies.tuples(strategies.integers(1, 3), strategies.integers(1, 3))
)


@hypothesis.given(_SHAPES, strategies.integers(1, 4), strategies.integers(0, 3))
def test_every_row_is_in_one_batch_that_holds_it(shapes, size, worth):
  seen = collections.Counter()
  for shape, rows in padding.by_shape(shapes, size, worth):
    assert 1 <= len(rows) <= size
    for row in rows.tolist():
      seen[row] += 1
      assert all(a <= b for a, b in zip(shapes[row], shape, strict=True))
      assert worth or shapes[row] == shape
  assert seen == collections.Counter(range(len(shapes)))


def test_the_size_may_depend_on_the_shape():
  shapes = [(8,), (4,), (4,), (4,), (8,)]
  batches = padding.by_shape(shapes, lambda shape: 8 // shape[0])
  assert [(shape, rows.tolist()) for shape, rows in batches] == [
    ((4,), [1, 2]),
    ((4,), [3]),
    ((8,), [0]),
    ((8,), [4]),
  ]


def test_similar_lengths_fill_their_batches():
  batches = padding.by_length([5, 2, 9, 2, 7], 2)
  assert [rows.tolist() for rows in batches] == [[1, 3], [0, 4], [2]]


@pytest.mark.parametrize(
  'longest, widths',
  [
    (1, (32,)),
    (33, (32, 64)),
    (123, (32, 64, 96, 128)),
    (411, (128, 256, 384, 416)),
    (1024, (256, 512, 768, 1024)),
  ],
)
def test_prompts_have_four_widths_at_most(longest, widths):
  assert padding.widths(longest) == widths
  for length in range(longest + 1):
    found = padding.width(length, longest)
    # The least that is wide enough.
    assert found == min(each for each in widths if each >= length)
  # A longer one than there can be has a shape of its own.
  assert padding.width(widths[-1] + 1, longest) == widths[-1] + 32


@pytest.mark.parametrize(
  'rows, most, size',
  [
    (1, 64, 1),
    (3, 64, 4),
    (64, 64, 64),
    (65, 64, 64),
    (9, 48, 16),
    (99, 48, 32),
  ],
)
def test_batches_have_powers_of_two(mesh1, rows, most, size):
  assert padding.batch_size(mesh1, rows, most) == size


def test_batches_fit_the_mesh(mesh8):
  # Two by two of the devices share a batch.
  found = [padding.batch_size(mesh8, rows, 8) for rows in (1, 4, 5, 100)]
  assert found == [4, 4, 8, 8]


def test_what_fills_up_is_zero():
  tree = {'a': np.array([[1, 2]], np.int32), 'b': np.array([True])}
  found = padding.fill(tree, 3)
  np.testing.assert_array_equal(found['a'], [[1, 2], [0, 0], [0, 0]])
  np.testing.assert_array_equal(found['b'], [True, False, False])
  assert found['a'].dtype == np.int32 and found['b'].dtype == bool
