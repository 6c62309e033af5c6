"""What the format reward can and cannot do once a group is compared."""

import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.rl import dapo, rewards

K = 5
BEFORE = jnp.array([[1], [3], [4]])
AFTER = jnp.array([[1, 2, 3, 1], [3, 1, 3, 5], [3, 4, 5, 4]])
VALID = jnp.ones((3, 4), bool)


def _advantages(reward, valid, alpha, invalid=-1.0):
  shaped = reward(BEFORE, AFTER, valid, K, alpha=alpha, invalid=invalid)
  return np.asarray(dapo.group_advantage(shaped, 'none'))


def test_alpha_for_every_valid_answer_cancels_where_all_are_valid():
  plain = _advantages(rewards.rank_promotion, VALID, 0.0)
  paid = _advantages(rewards.rank_promotion, VALID, 0.7)
  # Rewards of about 1 are rounded to 1e-7.
  np.testing.assert_allclose(plain, paid, atol=1e-6)


def test_an_invalid_answer_makes_it_a_pay_for_copying():
  valid = VALID.at[1, 3].set(False)
  # Rank 3 kept, lifted to 1, kept, and no permutation: 0, 0.4, 0 and -1.
  plain = _advantages(rewards.rank_promotion, valid, 0.0)[1]
  paid = _advantages(rewards.rank_promotion, valid, 0.2)[1]
  assert plain == pytest.approx([0.15, 0.55, 0.15, -0.85], abs=1e-6)
  assert paid == pytest.approx([0.2, 0.6, 0.2, -1.0], abs=1e-6)
  # The conditional reward gives alpha to the one that was lifted: kept orders
  # fall from 0.15 to 0.1.
  fair = _advantages(rewards.conditional, valid, 0.2)[1]
  assert fair == pytest.approx([0.1, 0.7, 0.1, -0.9], abs=1e-6)


def test_the_conditional_reward_pays_for_copying_where_it_is_right():
  fair = _advantages(rewards.conditional, VALID, 0.2)[0]
  # Kept at 1: 0.2 and 0.2; lowered to 2 and 3: -0.2 and -0.4.
  assert fair == pytest.approx([0.25, -0.15, -0.35, 0.25], abs=1e-6)
