import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.rank import bootstrap


def test_delta_is_the_difference_of_means():
  left = {'r': np.array([1.0, 0, 1, 1])}
  right = {'r': np.array([0.0, 0, 1, 0])}
  delta, low, high = bootstrap.paired_difference(left, right, seed=0)['r']
  assert delta == 0.5
  assert low <= delta <= high


def test_equal_systems_have_no_interval():
  values = {'r': np.array([1.0, 0, 1, 0, 0])}
  found = bootstrap.paired_difference(values, values, seed=3)
  assert found == {'r': [0.0, 0.0, 0.0]}


def test_interval_matches_the_normal_one():
  rng = np.random.default_rng(0)
  left, right = rng.normal(size=(2, 1_000))
  left = left + 0.3
  delta, low, high = bootstrap.paired_difference(
    {'r': left}, {'r': right}, seed=0
  )['r']
  half = 1.96 * np.std(left - right) / np.sqrt(1_000)
  # 10,000 draws: the quantiles are uncertain by about 2 % of the half-width.
  np.testing.assert_allclose(
    [low, high], [delta - half, delta + half], atol=0.006
  )


def test_pairing_narrows_the_interval():
  rng = np.random.default_rng(1)
  shared = rng.normal(size=500)
  left = {'r': shared + 0.1 * rng.normal(size=500)}
  paired = bootstrap.paired_difference(left, {'r': shared}, seed=0)['r']
  broken = bootstrap.paired_difference(
    left, {'r': rng.permutation(shared)}, seed=0
  )['r']
  assert paired[2] - paired[1] < 0.2 * (broken[2] - broken[1])


def test_seeded_and_joint_over_metrics():
  rng = np.random.default_rng(2)
  left = {'a': rng.normal(size=50), 'b': rng.normal(size=50)}
  right = {'b': rng.normal(size=50), 'a': rng.normal(size=50)}
  first = bootstrap.paired_difference(left, right, seed=5)
  assert first == bootstrap.paired_difference(left, right, seed=5)
  assert first != bootstrap.paired_difference(left, right, seed=6)
  # The same lists are drawn whatever the metrics beside it: equal up to the
  # order of the sums.
  alone = bootstrap.paired_difference(
    {'a': left['a']}, {'a': right['a']}, seed=5
  )
  np.testing.assert_allclose(alone['a'], first['a'], atol=1e-12)


def test_chunks_do_not_matter(monkeypatch):
  left = {'r': np.random.default_rng(0).normal(size=40)}
  right = {'r': np.zeros(40)}
  whole = bootstrap.paired_difference(left, right, seed=0, samples=100)
  monkeypatch.setattr(bootstrap, '_CHUNK', 80)
  parts = bootstrap.paired_difference(left, right, seed=0, samples=100)
  np.testing.assert_allclose(whole['r'], parts['r'], atol=1e-12)


def test_unlike_systems_are_an_error():
  with pytest.raises(ValueError, match='scored alike'):
    bootstrap.paired_difference({'a': np.ones(2)}, {'b': np.ones(2)}, seed=0)
  with pytest.raises(ValueError, match='same lists'):
    bootstrap.paired_difference({'a': np.ones(2)}, {'a': np.ones(3)}, seed=0)


@hypothesis.given(
  st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_interval_stays_inside_the_values(pairs):
  left, right = np.array(pairs, np.float64).T
  delta, low, high = bootstrap.paired_difference(
    {'r': left}, {'r': right}, seed=0, samples=200
  )['r']
  difference = left - right
  assert difference.min() <= low <= high <= difference.max()
