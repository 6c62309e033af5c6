"""The ranker's own parameters: where they start, what they make, their file."""

import json
import re

import jax
import numpy as np
import pytest

from gr2_jax.rank import evidence, heads, linear

NAMES = (*evidence.NAMES, 'price')
F = len(NAMES)


@pytest.fixture(scope='module')
def made():
  rng = np.random.default_rng(0)
  features = rng.normal(size=(40, 5, F)).astype(np.float32)
  mask = np.arange(5)[None] < rng.integers(2, 6, (40, 1))
  truth = rng.normal(size=F)
  odds = np.where(mask, features @ truth + rng.gumbel(size=(40, 5)), -np.inf)
  target = odds.argmax(1)
  return features, mask, target, heads.fit(features, mask, target)


def test_a_ranker_starts_as_good_as_its_evidence(made):
  features, mask, target, head = made
  assert set(head) == {'full', 'alone'}
  full = linear.fit(features, mask, target)
  np.testing.assert_allclose(head['full']['weights'], full, rtol=1e-6)
  # The incoming order is the second column.
  alone = linear.fit(features[..., 1:2], mask, target)
  np.testing.assert_allclose(head['alone']['weights'], alone, rtol=1e-6)
  assert head['full']['weights'].shape == (F,)
  assert head['alone']['weights'].shape == (1,)
  for own in head.values():
    # What words add is left to RL.
    assert own['tau'] == np.float32(0.3) and own['words'] == 0
  leaves = jax.tree.leaves(head)
  assert all(x.dtype == np.float32 for x in leaves) and len(leaves) == 6


def test_stacking_is_the_linear_model_with_the_likelihood_as_a_column(made):
  features, mask, target, head = made
  rng = np.random.default_rng(1)
  logps = rng.normal(-9, 2, mask.shape).astype(np.float32)
  logps[~mask] = -np.inf
  found = heads.stack(head, logps, features, mask, target)
  filled = np.where(mask, logps, 0)[..., None]
  # Forty lists beside a normal prior of deviation 0.3.
  for name, columns in (('full', features), ('alone', features[..., 1:2])):
    prior = [head[name]['tau'], *head[name]['weights']]
    expected = linear.fit(
      np.concatenate([filled, columns], axis=-1),
      mask,
      target,
      1 / (40 * 0.09),
      np.array(prior),
    )
    own = found[name]
    # Without the mean of the list, in float32.
    np.testing.assert_allclose(own['tau'], expected[0], atol=1e-5)
    np.testing.assert_allclose(own['weights'], expected[1:], atol=1e-5)
    assert own['words'] == head[name]['words']
  shapes = jax.tree.map(np.shape, (found, head))
  assert shapes[0] == shapes[1]
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(found))


def test_stacking_finds_how_far_to_trust_the_likelihood():
  """One that was learned from lists by heart tells little of others."""
  rng = np.random.default_rng(0)
  count, names = 4000, evidence.NAMES
  mask = np.ones((count, 6), bool)
  features = rng.normal(size=(count, 6, len(names))).astype(np.float32)
  logps = rng.normal(size=(count, 6)).astype(np.float32)
  weights = np.array([0, 0.5, 1.0, 0, -0.5])
  noise = rng.gumbel(size=(count, 6))
  target = (0.1 * logps + features @ weights + noise).argmax(1)
  head = heads.shapes(names)
  head['full']['tau'] = head['alone']['tau'] = np.float32(2.0)
  found = heads.stack(head, logps, features, mask, target)['full']
  # Standard errors are about 0.02 at four thousand lists.
  assert found['tau'] == pytest.approx(0.1, abs=0.08)
  np.testing.assert_allclose(found['weights'], weights, atol=0.08)


def test_utilities_by_hand():
  head = {
    'full': {'tau': 0.5, 'weights': np.array([1, -2, 3.0]), 'words': 0.25},
    'alone': {'tau': 2.0, 'weights': np.array([10.0]), 'words': -3.0},
  }
  logps = np.array([[-4.0, -6.0]], np.float32)
  features = np.array([[[1, 2, 3], [0, 1, -1]]], np.float32)
  # -2 + 1 - 4 + 9 and -3 + 0 - 2 - 3; -8 + 20 and -12 + 10.
  full = heads.utilities(head, 'full', logps, features)
  np.testing.assert_allclose(full, [[4, -8]])
  alone = heads.utilities(head, 'alone', logps, features)
  np.testing.assert_allclose(alone, [[12, -2]])
  # Words come on top: 4 - 2 and -8 - 1; 12 + 24 and -2 + 12.
  behind = np.array([[-8.0, -4.0]], np.float32)
  full = heads.utilities(head, 'full', logps, features, behind)
  np.testing.assert_allclose(full, [[2, -9]])
  alone = heads.utilities(head, 'alone', logps, features, behind)
  np.testing.assert_allclose(alone, [[36, 10]])


def test_each_of_several_explanations_adds_to_the_same_direct_utility():
  head = {'full': {'tau': 1.0, 'weights': np.array([2.0]), 'words': 0.5}}
  logps = np.array([[[-1.0, -2.0]]], np.float32)
  features = np.array([[[[3.0], [0.0]]]], np.float32)
  behind = np.array([[[0.0, -2.0], [-4.0, 0.0]]], np.float32)
  found = heads.utilities(head, 'full', logps, features, behind)
  np.testing.assert_allclose(found, [[[5, -3], [3, -2]]])


def test_a_head_comes_back_as_it_was_saved(made, tmp_path):
  assert heads.load(tmp_path) is None
  heads.save(tmp_path, made[3], NAMES)
  loaded, names = heads.load(tmp_path)
  assert names == NAMES
  jax.tree.map(np.testing.assert_array_equal, loaded, made[3])
  like = heads.shapes(NAMES)
  assert jax.tree.map(np.shape, like) == jax.tree.map(np.shape, loaded)


def test_reports_name_each_weight(made):
  found = heads.describe(made[3], NAMES)
  assert list(found) == ['full', 'alone']
  assert list(found['full']) == ['tau', 'words', *NAMES]
  assert list(found['alone']) == ['tau', 'words', 'log_rank']
  assert found['full']['tau'] == 0.3 and found['alone']['words'] == 0
  weights = made[3]['full']['weights']
  assert found['full']['price'] == round(float(weights[-1]), 4)


def _change(path, value):
  def damage(stored):
    part = stored
    for name in path[:-1]:
      part = part[name]
    part[path[-1]] = value
    return stored

  return damage


@pytest.mark.parametrize(
  'damage',
  [
    lambda stored: [],
    lambda stored: 'head',
    lambda stored: {k: v for k, v in stored.items() if k != 'columns'},
    lambda stored: {k: v for k, v in stored.items() if k != 'full'},
    # One that was written when each prompt had a head of its own.
    lambda stored: {'columns': stored.pop('columns'), 'direct': stored},
    _change(('columns',), None),
    _change(('columns',), ['score', 'log_rank']),
    _change(('columns', 0), 7),
    _change(('full', 'weights'), [1.0]),
    _change(('alone', 'tau'), [1.0, 2.0]),
    _change(('alone', 'tau'), 'much'),
    _change(('alone', 'words'), float('nan')),
    _change(('alone',), {'tau': 1.0, 'weights': [1.0]}),
    _change(('full',), 3),
  ],
)
def test_a_damaged_file_is_refused_by_name(made, tmp_path, damage):
  heads.save(tmp_path, made[3], NAMES)
  path = tmp_path / 'head.json'
  path.write_text(json.dumps(damage(json.loads(path.read_text()))))
  with pytest.raises(ValueError, match=f'{re.escape(str(path))} is damaged'):
    heads.load(tmp_path)


def test_half_a_file_is_refused(made, tmp_path):
  heads.save(tmp_path, made[3], NAMES)
  path = tmp_path / 'head.json'
  path.write_text(path.read_text()[:100])
  with pytest.raises(ValueError, match='is damaged.*run the stage again'):
    heads.load(tmp_path)
