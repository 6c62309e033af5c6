"""The made-up world: its best order by hand, its noise, its determinism."""

import dataclasses

import numpy as np
import pytest

from gr2_jax.data import sources, synthetic
from gr2_jax.rank import metrics

CFG = synthetic.WorldConfig(users=300, seed=3)


def _index(raw):
  return {item.item_id: i for i, item in enumerate(raw.items)}


def _lists(cfg):
  """History, list in pre-rank order and target of every slate, as indices."""
  raw = synthetic.read(cfg)
  index = _index(raw)
  sequences = {}
  for row in raw.interactions:
    sequences.setdefault(row.user_id, []).append(index[row.item_id])
  for slate in raw.slates:
    shown = np.array([index[item] for item in slate.item_ids])
    history = np.array(sequences[slate.user_id][: slate.timestamp])
    target = sequences[slate.user_id][slate.timestamp]
    yield history, shown, target, slate.labels


def test_the_best_order_by_hand():
  cfg = synthetic.WorldConfig(groups=5, members=2, k=4, stride=1, length=3)
  # The last item, 7, is of group 3: wanted is group 4, then 0, 1, 2.
  candidates = np.array([3, 4, 9, 0])
  order = synthetic.best_order(cfg, np.array([2, 7]), candidates)
  assert order.tolist() == [9, 0, 3, 4]


def test_semantic_ids_are_distinct_and_fit_their_codes():
  sids = synthetic.sids(CFG)
  assert sids.shape == (60, synthetic.LEVELS) and sids.max() == CFG.codes - 1
  assert len({tuple(sid) for sid in sids.tolist()}) == 60


@pytest.mark.parametrize(
  'change', [{}, {'stride': 1}, {'stride': 4, 'members': 2}, {'noise': 0.0}]
)
def test_who_knows_the_rule_reaches_ndcg_1(change):
  cfg = dataclasses.replace(CFG, **change)
  places = []
  for history, shown, target, labels in _lists(cfg):
    assert len(set(shown.tolist())) == cfg.k
    assert len(set((shown // cfg.members).tolist())) == cfg.k
    assert labels == tuple(int(item == target) for item in shown)
    assert target not in history
    best = synthetic.best_order(cfg, history, shown)
    assert sorted(best.tolist()) == sorted(shown.tolist())
    places.append(best.tolist().index(target))
  assert len(places) == cfg.users * (cfg.length - 1)
  assert metrics.ndcg_at_k(np.array(places), 5) == 1


def _first(cfg):
  """Share of the lists that show the true item first."""
  lists = list(_lists(cfg))
  return np.mean([shown[0] == target for _, shown, target, _ in lists])


def test_the_incoming_order_is_as_wrong_as_the_noise_says():
  assert _first(dataclasses.replace(CFG, noise=0.0)) == 1
  # Two items: wrong if the noise turns a gap of 1 around, Phi(-1 / sqrt 2).
  # 1,200 lists: three standard errors are 0.037.
  two = dataclasses.replace(CFG, k=2, noise=1.0)
  assert _first(two) == pytest.approx(1 - 0.2398, abs=0.037)
  shares = [_first(dataclasses.replace(CFG, noise=x)) for x in (0.5, 1.5, 5)]
  assert 1 > shares[0] > shares[1] > shares[2] > 1 / CFG.k


def test_the_world_depends_on_its_seed_alone():
  assert synthetic.read(CFG) == synthetic.read(CFG)
  other = dataclasses.replace(CFG, seed=4)
  assert synthetic.read(CFG).slates != synthetic.read(other).slates


def test_indices_stay_what_they_were():
  dataset = sources.read(
    sources.SourceConfig(
      'world',
      'synthetic',
      core=0,
      world=synthetic.WorldConfig(users=12),
    )
  )
  assert dataset.num_users == 12 and dataset.num_items == 60
  raw = synthetic.read(synthetic.WorldConfig(users=12))
  assert list(dataset.items) == list(raw.items)
  assert len(dataset.slates) == 12 * 4
  for slate in dataset.slates:
    place = slate.labels.index(1)
    taken = dataset.sequence(slate.user)[slate.timestamp]
    assert slate.items[place] == taken


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'groups': 1, 'k': 1}, 'groups = 1 must be at least 2'),
    ({'k': 11}, 'k = 11 must be 2 to groups = 10'),
    ({'length': 1}, 'length = 1 must be at least 2'),
    ({'members': 4}, 'members = 4 must be at least 5'),
    ({'members': 1, 'stride': 5, 'length': 3}, 'members = 1 .* at least 2'),
    ({'noise': -1.0}, 'noise = -1.0'),
    ({'users': 0}, 'users = 0'),
  ],
)
def test_worlds_that_cannot_be_built_are_named(fields, message):
  with pytest.raises(ValueError, match=f'data.world.{message}'):
    synthetic.WorldConfig(**fields)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'kind': 'synthetic', 'dir': 'x'}, "data.dir is 'x'"),
    ({'kind': 'synthetic', 'core': 5}, 'data.core 5'),
    (
      {'kind': 'ml-100k', 'world': synthetic.WorldConfig(users=5)},
      'data.world is set',
    ),
  ],
)
def test_sources_that_contradict_themselves_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    sources.SourceConfig(name='world', **fields)
