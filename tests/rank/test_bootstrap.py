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


def _slow(left, right, groups, seed, samples):
  """Draws clusters one by one and averages over every list of each draw."""
  rng = np.random.default_rng(seed)
  members = [
    [i for i, g in enumerate(groups) if g == group]
    for group in sorted(set(groups))
  ]
  means = []
  for _ in range(samples):
    lists = []
    for drawn in rng.integers(len(members), size=len(members), dtype=np.int32):
      lists += members[drawn]
    means.append(sum(left[i] - right[i] for i in lists) / len(lists))
  whole = sum(a - b for a, b in zip(left, right, strict=True)) / len(left)
  return [whole, *np.quantile(means, [0.025, 0.975])]


def test_clusters_are_drawn_as_a_slow_loop_draws_them():
  rng = np.random.default_rng(4)
  # Ids with gaps, in no order, from one to several lists each.
  groups = rng.choice([7, 3, 11, 40, 5, 2, 9], 30, p=[0.4] + [0.1] * 6)
  left, right = rng.random((2, 30))
  want = _slow(left, right, groups.tolist(), 6, 300)
  found = bootstrap.paired_difference(
    {'r': left}, {'r': right}, seed=6, samples=300, groups=groups
  )['r']
  # The same draws: equal up to the order of the sums.
  np.testing.assert_allclose(found, want, atol=1e-12)


def test_groups_of_one_list_change_nothing():
  rng = np.random.default_rng(5)
  left, right = {'r': rng.normal(size=400)}, {'r': rng.normal(size=400)}
  alone = bootstrap.paired_difference(left, right, seed=0)
  # In the order of their ids the same clusters are drawn: the same bits.
  order = np.arange(400) * 3 + 1
  assert alone == bootstrap.paired_difference(left, right, seed=0, groups=order)
  mixed = bootstrap.paired_difference(
    left, right, seed=0, groups=rng.permutation(400)
  )
  half = (alone['r'][2] - alone['r'][1]) / 2
  # Other lists are drawn. The standard error of a 2.5 % quantile of 10,000
  # draws is sqrt(0.025 * 0.975 / 10,000) / density, 0.027 deviations of the
  # mean or 0.014 half-widths; two of them differ by 1.4 times that: four
  # errors.
  np.testing.assert_allclose(mixed['r'], alone['r'], atol=4 * 0.02 * half)


def test_an_interval_by_groups_covers_what_groups_share():
  """Values are the group's alone: as many lists as wanted tell no more."""
  rng = np.random.default_rng(6)
  shared = rng.normal(size=300)
  zero = lambda x: {'r': np.zeros_like(x)}
  once = bootstrap.paired_difference({'r': shared}, zero(shared), seed=0)['r']
  many = np.repeat(shared, 9)
  groups = np.repeat(np.arange(300), 9)
  whole = bootstrap.paired_difference(
    {'r': many}, zero(many), seed=0, groups=groups
  )['r']
  np.testing.assert_allclose(whole, once, atol=1e-12)
  naive = bootstrap.paired_difference({'r': many}, zero(many), seed=0)['r']
  # By lists the interval would be three times narrower.
  ratio = (whole[2] - whole[1]) / (naive[2] - naive[1])
  assert ratio == pytest.approx(3, rel=0.1)


def test_large_groups_weigh_by_their_lists():
  # One group of three ones, one of a single zero: the mean is over lists.
  values = {'r': np.array([1.0, 1.0, 1.0, 0.0])}
  zero = {'r': np.zeros(4)}
  found = bootstrap.paired_difference(
    values, zero, seed=0, groups=np.array([0, 0, 0, 1])
  )['r']
  # Drawn twice each, or both: 1, 0 or 3/4.
  assert found == [0.75, 0.0, 1.0]


def test_groups_must_be_of_the_lists():
  with pytest.raises(ValueError, match=r'shape \(3,\); .* of the 2 lists'):
    bootstrap.paired_difference(
      {'a': np.ones(2)}, {'a': np.ones(2)}, seed=0, groups=np.arange(3)
    )
