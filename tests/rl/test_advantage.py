"""Group advantages: numbers by hand, groups of one refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.rl.advantage import group_advantage


def test_by_hand():
  rewards = jnp.array([[1.0, 3.0], [0.5, 0.5], [-1.0, 0.2]])
  # Mean 2, standard deviation 1; no variance; mean -0.4, deviation 0.6.
  expected = [[-1.0, 1.0], [0.0, 0.0], [-1.0, 1.0]]
  np.testing.assert_allclose(group_advantage(rewards), expected, atol=1e-5)
  expected = [[-1.0, 1.0], [0.0, 0.0], [-0.6, 0.6]]
  got = group_advantage(rewards, norm='none')
  np.testing.assert_allclose(got, expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
  st.lists(
    st.lists(st.integers(-9, 12), min_size=4, max_size=4),
    min_size=1,
    max_size=5,
  )
)
def test_equals_numpy_group_by_group(tenths):
  rewards = np.array(tenths, np.float32) / 10
  got = np.asarray(group_advantage(rewards))
  for row, advantage in zip(rewards, got, strict=True):
    if row.max() == row.min():
      np.testing.assert_array_equal(advantage, 0)
      continue
    expected = (row - row.mean()) / (row.std() + 1e-6)
    # The smallest deviation here is 0.04, a thousand roundings or more.
    np.testing.assert_allclose(advantage, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(advantage.mean(), 0, atol=1e-4)
    np.testing.assert_allclose(advantage.std(), 1, atol=1e-3)


def test_group_of_one_is_refused():
  with pytest.raises(ValueError, match='G >= 2'):
    group_advantage(jnp.ones((3, 1)))
  with pytest.raises(ValueError, match='G >= 2'):
    group_advantage(jnp.ones((3,)))


def test_unknown_norm_is_named():
  with pytest.raises(ValueError, match='var'):
    group_advantage(jnp.ones((3, 2)), norm='var')
