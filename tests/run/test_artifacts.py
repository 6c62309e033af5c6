"""Which lists SFT trains on, and which are left to RL."""

import ml_collections
import numpy as np
import pytest

from gr2_jax import files
from gr2_jax.run import artifacts

# Of 40 lists every fourth misses its target: 30 hits.
TARGET = np.where(np.arange(40) % 4 == 3, -1, np.arange(40) % 3)
HITS = [user for user in range(40) if user % 4 != 3]


def write(workdir, name, first_user):
  """Writes 40 lists of 3 items, one of each user from `first_user` on."""
  (workdir / 'candidates').mkdir(exist_ok=True)
  files.atomic_savez(
    workdir / 'candidates' / f'{name}.npz',
    user=first_user + np.arange(40),
    position=np.full(40, 5),
    candidates=np.arange(120).reshape(40, 3),
    scores=np.zeros((40, 3), np.float32),
    target=TARGET,
  )


@pytest.fixture
def store(tmp_path):
  """`store(seed, sft_share, **candidates)` reads a run without folds."""
  write(tmp_path, 'train', 0)

  def make(seed=0, sft_share=None, **candidates):
    traces = {} if sft_share is None else {'sft_share': sft_share}
    config = {'seed': seed, 'candidates': candidates, 'traces': traces}
    return artifacts.Artifacts(ml_collections.ConfigDict(config), tmp_path)

  return make


def users(lists):
  return lists.user.tolist()


@pytest.mark.parametrize('share, count', [(0.1, 3), (0.5, 15), (0.9, 27)])
def test_sft_and_rl_divide_the_lists_that_hold_their_target(
  store, share, count
):
  run = store(sft_share=share)
  sft, rl = users(run.sft_lists()), users(run.rl_lists())
  assert (len(sft), len(rl)) == (count, 30 - count)
  assert set(sft).isdisjoint(rl)
  assert sorted(sft + rl) == HITS
  # In their order, and each list with all that is its own.
  assert sft == sorted(sft) and rl == sorted(rl)
  for lists in (run.sft_lists(), run.rl_lists()):
    np.testing.assert_array_equal(lists.target, TARGET[lists.user])
    np.testing.assert_array_equal(lists.candidates[:, 0], 3 * lists.user)


def test_the_division_depends_on_the_seed_and_on_nothing_else(store):
  sft = users(store(sft_share=0.5).sft_lists())
  assert sft != HITS[:15], 'drawn, not the first ones'
  # Whoever asks first, and however often, reads the same.
  again = store(sft_share=0.5)
  rl = users(again.rl_lists())
  assert users(again.sft_lists()) == sft == users(again.sft_lists())
  assert users(again.rl_lists()) == rl
  assert users(store().sft_lists()) == sft, 'half is the default'
  assert users(store(1, sft_share=0.5).sft_lists()) != sft
  # A greater share adds lists to those of a smaller one.
  assert set(sft) < set(users(store(sft_share=0.6).sft_lists()))


def test_the_lists_of_the_folds_are_joined_for_sft_alone(store, tmp_path):
  without = store(sft_share=0.5, fold_use='sft')
  sft, rl = users(without.sft_lists()), users(without.rl_lists())
  write(tmp_path, 'folds', 100)
  folds = [100 + user for user in HITS]
  for settings in ({}, {'fold_use': 'head'}):
    head = store(sft_share=0.5, **settings)
    assert users(head.sft_lists()) == sft
    assert users(head.rl_lists()) == rl
    assert users(head.training_lists()) == folds + HITS
  joined = store(sft_share=0.5, fold_use='sft')
  assert users(joined.sft_lists()) == folds + sft
  assert users(joined.rl_lists()) == rl, 'no list of a fold, no other list'


def test_a_share_that_leaves_nothing_says_so(store, tmp_path):
  with pytest.raises(ValueError, match=r'SFT has no .*sft_share = 0\.0'):
    store(sft_share=0.0).sft_lists()
  with pytest.raises(ValueError, match=r'RL has no .*sft_share = 1\.0'):
    store(sft_share=1.0).rl_lists()
  assert users(store(sft_share=1.0).sft_lists()) == HITS
  # The folds' lists are enough for SFT.
  write(tmp_path, 'folds', 100)
  run = store(sft_share=0.0, fold_use='sft')
  assert users(run.sft_lists()) == [100 + user for user in HITS]


@pytest.mark.parametrize(
  'content',
  [
    'null',
    '{}',
    '{"names": [1], "scales": [1.0]}',
    '{"names": ["a"]}',
    '{"names": ["a"], "scales": [0.0]}',
    '{"names": ["a"], "scales": [Infinity]}',
    '{"names": ["a"], "scales": [1.0, 2.0]}',
  ],
)
def test_damaged_names_and_units_of_columns_are_named(store, tmp_path, content):
  assert store().evidence_names == ()
  (tmp_path / 'candidates' / 'evidence.json').write_text(content)
  with pytest.raises(ValueError, match='evidence.json'):
    assert store().evidence_names


def test_a_damaged_archive_of_lists_is_named(store, tmp_path):
  path = tmp_path / 'candidates' / 'train.npz'
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(ValueError, match='train.npz is no archive of arrays'):
    store().lists('train')
  files.atomic_savez(path, user=np.arange(3))
  with pytest.raises(ValueError, match=r"train.npz lacks .*'position'"):
    store().lists('train')
