"""What the rewards favour where an order is less often valid than a copy.

A bandit of three answers to a list: copy it, reorder it at random, or apply the
rule, which puts the true item first. Copies are valid in 0.9 of the cases, the
others in 0.2. Rewards, advantages and filter are the project's own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.rl import dapo, groups, rewards

K, ALPHA = 10, 0.2
# Chance of the true item's place in the incoming order: first in 0.44.
PLACES = np.array([0.44, 0.25, 0.15, 0.08, 0.04, 0.02, 0.02, 0, 0, 0])
COPY, RANDOM, RULE = range(3)
VALID = jnp.array([0.9, 0.2, 0.2])
SHAPED = {
  'conditional': rewards.conditional,
  'unconditional': rewards.rank_promotion,
}


def _score(shaped, before, after, valid, invalid, norm):
  """Advantages [Q, G], and which groups the filter keeps, [Q]."""
  ranks = before, after, valid, K
  plain = rewards.rank_promotion(*ranks, alpha=0.0, invalid=invalid)
  gained = SHAPED[shaped](*ranks, alpha=ALPHA, invalid=invalid)
  return dapo.group_advantage(gained, norm), groups.has_variance(plain)


@functools.partial(jax.jit, static_argnames=('shaped', 'filtered'))
def _train(seed, invalid, shaped, filtered=True):
  """Returns the policy that 400 steps on 128 groups of eight end in."""

  def step(logits, key):
    keys = jax.random.split(key, 4)
    before = jax.random.choice(keys[0], K, (128, 1), p=jnp.array(PLACES)) + 1
    chosen = jax.random.categorical(keys[1], logits, shape=(128, 8))
    valid = jax.random.uniform(keys[2], chosen.shape) < VALID[chosen]
    drawn = jax.random.randint(keys[3], chosen.shape, 1, K + 1)
    after = jnp.where(chosen == COPY, before, drawn)
    after = jnp.where(chosen == RULE, 1, after)
    gain, kept = _score(shaped, before, after, valid, invalid, 'std')
    weight = kept[:, None] if filtered else jnp.ones((128, 1))

    def surrogate(logits):
      logps = jax.nn.log_softmax(logits)[chosen]
      return (logps * gain * weight).sum() / jnp.maximum(weight.sum() * 8, 1)

    return logits + 0.25 * jax.grad(surrogate)(logits), None

  keys = jax.random.split(jax.random.key(seed), 400)
  return jax.nn.softmax(jax.lax.scan(step, jnp.zeros(3), keys)[0])


def _policies(shaped, invalid, **kwargs):
  return [np.asarray(_train(s, invalid, shaped, **kwargs)) for s in range(3)]


@pytest.mark.parametrize('shaped', SHAPED)
def test_with_minus_one_both_rewards_end_in_copies(shaped):
  for policy in _policies(shaped, -1.0):
    assert policy[COPY] > 0.98


def test_with_zero_the_condition_decides():
  for policy in _policies('conditional', 0.0):
    assert policy[RULE] > 0.9
  for policy in _policies('unconditional', 0.0):
    # It stays mixed: the more copies, the fewer groups pass the filter by them.
    # Larger groups pass more often, and copies win more: 0.9 with sixteen.
    assert 0.6 < policy[COPY] < 0.9 and policy[RULE] > 0.1


def test_without_the_filter_even_zero_ends_in_copies():
  """Copies that are right and valid are set against invalid ones, then."""
  for policy in _policies('conditional', 0.0, filtered=False):
    assert policy[COPY] > 0.9


def _expected(shaped, invalid, valid, share, ranks, filtered):
  """E[advantage | reorder] - E[advantage | copy], by all groups of two.

  Args:
    shaped: which reward.
    invalid: reward of an invalid answer.
    valid: chance of a valid copy, and of a valid reordering.
    share: chance that an answer is a copy.
    ranks: float [K], the true item's rank where a reordering is valid.
    filtered: whether groups without variance are left out.
  """
  # Outcomes: a valid copy, a valid reordering to each rank, an invalid answer.
  copy = np.array([valid[0], *np.zeros(K), 1 - valid[0]])
  reorder = np.array([0, *(valid[1] * ranks), 1 - valid[1]])
  either = share * copy + (1 - share) * reorder
  place, one, two = map(
    np.ravel, np.meshgrid(*map(np.arange, (K, K + 2, K + 2)), indexing='ij')
  )
  outcome = np.stack([one, two], 1)
  before = place[:, None] + 1
  after = np.where(outcome == 0, before, outcome)
  gain, kept = _score(shaped, before, after, outcome <= K, invalid, 'none')
  gain = np.asarray(gain[:, 0], float) * (kept if filtered else 1)
  return (PLACES[place] * (reorder - copy)[one] * either[two] * gain).sum()


def _means(shaped, ranks):
  """g of a reordering, and the shares of lists that earn alpha."""
  before, after = np.meshgrid(
    np.arange(1, K + 1), np.arange(1, K + 1), indexing='ij'
  )
  chance = PLACES[:, None] * ranks
  gain = (chance * (before - after) / K).sum()
  if shaped == 'unconditional':
    return gain, 1.0, 1.0
  rose = (after < before) | ((after == 1) & (before == 1))
  return gain, PLACES[0], (chance * rose).sum()


ORDERS = {'rule': np.eye(K)[0], 'random': np.full(K, 1 / K)}


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('shaped', SHAPED)
def test_minus_one_favours_reordering_beyond_the_bound(shaped, order):
  ranks = ORDERS[order]
  gain, first, rise = _means(shaped, ranks)
  bound = (1 + ALPHA * first) / (1 + gain + ALPHA * rise)
  for ratio in (0.2 / 0.9, 0.99 * bound, 1.01 * bound):
    valid = (0.5, 0.5 * ratio)
    found = [
      _expected(shaped, -1.0, valid, 0.3, ranks, filtered)
      for filtered in (True, False)
    ]
    assert (found[0] > 0) == (ratio > bound)
    # Half of it, since an answer is compared with a group that holds itself.
    expected = (1 + gain + ALPHA * rise) * valid[1]
    expected = (expected - (1 + ALPHA * first) * valid[0]) / 2
    # float32 advantages of order one.
    np.testing.assert_allclose(found, expected, atol=1e-6)
  # Far from the bandit's 0.2 / 0.9.
  assert bound > 0.8


@pytest.mark.parametrize('shaped', SHAPED)
def test_zero_favours_the_rule_beyond_a_lower_bound(shaped):
  ranks = ORDERS['rule']
  gain, first, rise = _means(shaped, ranks)
  bound = ALPHA * first / (gain + ALPHA * rise)
  for ratio in (0.99 * bound, 1.01 * bound):
    valid = (0.9, 0.9 * ratio)
    found = _expected(shaped, 0.0, valid, 0.3, ranks, filtered=False)
    assert (found > 0) == (ratio > bound)


def test_the_filter_lets_the_rule_win_below_it():
  ranks, valid = ORDERS['rule'], (0.9, 0.2)
  found = [
    _expected('conditional', 0.0, valid, 0.3, ranks, filtered)
    for filtered in (True, False)
  ]
  assert found[0] > 0 > found[1]
