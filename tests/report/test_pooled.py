"""Runs of several seeds as one result, by hand."""

import math

import numpy as np
import pytest

from gr2_jax.report import pooled, results


def _save(path, users, **places):
  """Systems whose lists have the true item, 0, at the places given."""
  systems = {}
  for name, own in places.items():
    orders = np.array([np.roll(np.arange(10), place) for place in own])
    systems[name] = results.System(orders, np.ones(len(orders), bool))
  targets = np.zeros(len(users), np.int32)
  pooled.save(path, np.array(users), systems, targets)
  return path


def test_means_deviations_and_differences_by_hand(tmp_path):
  paths = [
    _save(tmp_path / 'a.npz', [1, 1, 2], rl=[0, 0, 6], prerank=[0, 6, 6]),
    _save(tmp_path / 'b.npz', [1, 2], rl=[0, 0], prerank=[0, 1]),
  ]
  found = pooled.pool(paths, seed=0)
  assert found['lists'] == [3, 2]
  assert list(found['systems']) == ['prerank', 'rl']
  mean, spread = found['systems']['rl']['recall@1']
  assert mean == pytest.approx((2 / 3 + 1) / 2)
  assert spread == pytest.approx((1 - 2 / 3) / math.sqrt(2))
  # Of five lists: rl puts four first, the incoming order two.
  delta, low, high = found['deltas']['rl-prerank']['recall@1']
  assert delta == pytest.approx((4 - 2) / 5)
  # Users are drawn with their lists of both runs: user 1 has a difference in
  # one of three lists, user 2 in one of two.
  assert (low, high) == (pytest.approx(1 / 3), pytest.approx(1 / 2))
  assert set(found['deltas']) == {'rl-prerank'}


def test_one_run_has_no_deviation(tmp_path):
  path = _save(tmp_path / 'a.npz', [1, 2], rl=[0, 3], prerank=[1, 1])
  found = pooled.pool([path], seed=0)
  assert found['systems']['rl']['recall@1'] == [0.5, 0.0]
  lines = pooled.table(found).splitlines()
  assert lines[0].split() == ['1', 'runs', 'recall@1', 'recall@5', 'ndcg@5']
  assert any(line.startswith('rl-prerank') for line in lines)


def test_runs_with_other_systems_are_refused(tmp_path):
  one = _save(tmp_path / 'a.npz', [1], rl=[0])
  two = _save(tmp_path / 'b.npz', [1], sft=[0])
  with pytest.raises(ValueError, match=r"b.npz has the systems \['sft'\]"):
    pooled.pool([one, two], seed=0)
