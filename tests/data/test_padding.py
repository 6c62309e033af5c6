"""Ragged rows in few shapes."""

import numpy as np
import pytest

from gr2_jax.data import padding


def test_batch_pads_on_the_right():
  tokens, valid = padding.batch([[5, 6, 7], [8]], 4, pad=0)
  np.testing.assert_array_equal(tokens, [[5, 6, 7, 0], [8, 0, 0, 0]])
  np.testing.assert_array_equal(valid, [[1, 1, 1, 0], [1, 0, 0, 0]])
  assert tokens.dtype == np.int32 and valid.dtype == bool
  with pytest.raises(ValueError, match='Prompt 1 has 3'):
    padding.batch([[1], [1, 2, 3]], 2, pad=0)


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
