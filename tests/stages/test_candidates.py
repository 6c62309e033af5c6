"""The candidates stage: its files, its report, and a run that was cut off."""

import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import config as config_lib
from gr2_jax import files, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import stored
from gr2_jax.decode import retrieve
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, io
from gr2_jax.stages import candidates
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {i}', (('Drama', 'Comedy')[i % 2],))
  for i in range(25)
]
USERS, LENGTH, K = 30, 9, 4


@pytest.fixture(scope='module')
def made():
  rng = np.random.default_rng(0)
  sequences = {f'u{u:02d}': rng.permutation(25)[:LENGTH] for u in range(USERS)}
  return dataset_lib.from_sequences('made-up', ITEMS, sequences)


@pytest.fixture(scope='module')
def before(tmp_path_factory, made):
  """A directory with the finished stages before this one."""
  root = tmp_path_factory.mktemp('before')
  for stage in ('data', 'sid', 'midtrain'):
    (root / stage).mkdir()
    files.write_json(root / stage / 'DONE', {'fingerprint': stage})
    files.write_json(root / stage / 'summary.json', {'seconds': 1.5})
  counts = {**made.counts, 'name': 'made-up', 'sha256': made.sha256}
  files.write_json(root / 'data' / 'summary.json', {**counts, 'seconds': 1.5})
  sids = np.stack([np.arange(25) // 5, np.arange(25) % 5], axis=1)
  files.atomic_savez(root / 'sid' / 'sids.npz', sids=sids)
  vocab = vocab_lib.Vocab.train(wording.corpus(ITEMS), 320, levels=2, codes=5)
  vocab.save(root / 'midtrain' / 'vocab')
  shape = lm_config.LMConfig(16, 1, 2, 1, 8, mlp_dim=16, vocab_size=vocab.size)
  mesh = sharding.make_mesh()
  params = decoder.init(shape, mesh, sharding.DECODE_RULES, jax.random.key(0))
  io.save(root / 'midtrain' / 'model', shape, params)
  return root


@pytest.fixture
def workdir(tmp_path, before, made, monkeypatch):
  """`workdir(name)`: a run of its own on the stages before."""
  monkeypatch.setattr(stored, 'load', lambda directory: made)

  def make(name):
    (tmp_path / name).mkdir()
    for stage in before.iterdir():
      (tmp_path / name / stage.name).symlink_to(stage)
    return tmp_path / name

  return make


def config(**section):
  section = {'k': K, 'width': 10, 'batch_size': 16, 'chunk': 12, **section}
  section.setdefault('baselines', ['popularity'])
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'split': {'kind': 'leave_one_out'}},
      'text': {'prompt': {'max_candidates': K}},
      'candidates': section,
    }
  )


def read(path):
  with np.load(path) as arrays:
    return dict(arrays)


@pytest.mark.parametrize('source', ['lm', 'popularity'])
def test_lists_and_report(workdir, made, source):
  run = workdir(source)
  summary = candidates.run(config(source=source), run)
  assert not (run / 'candidates' / 'parts').exists()
  for split, position in (('train', 6), ('valid', 7), ('test', 8)):
    lists = read(run / 'candidates' / f'{split}.npz')
    assert lists['candidates'].shape == lists['scores'].shape == (USERS, K)
    assert lists['user'].tolist() == list(range(USERS))
    assert (lists['position'] == position).all()
    for row in range(USERS):
      user, items = lists['user'][row], lists['candidates'][row]
      history = made.sequence(user)[:position]
      assert len(set(items)) == K and not set(items) & set(history)
      goal = made.sequence(user)[position]
      place = list(items).index(goal) if goal in items else -1
      assert lists['target'][row] == place
      assert place == -1 or lists['rank'][row] == place
    assert (np.diff(lists['scores']) <= 0).all()
    hits = (lists['target'] >= 0).mean()
    assert summary['hit_rate'][split] == pytest.approx(hits)
  test = read(run / 'candidates' / 'test.npz')
  block = summary['retrieval']
  assert block['n'] == USERS and block['illegal_rate'] == 0
  assert block['recall@10'] == pytest.approx((test['rank'] < 10).mean())
  # 17 items are left for a user, so that ten of them hold the target often.
  assert 0.3 < block['recall@10'] < 1
  gains = np.where(test['rank'] < 5, 1 / np.log2(2.0 + test['rank']), 0)
  assert block['ndcg@5'] == pytest.approx(gains.mean())
  assert set(summary['baselines']) == {'popularity'}
  assert summary['source'] == source
  report = files.read_json(run / 'retrieval.json')
  assert report['retrieval'] == block and report['seed'] == 0
  assert set(report['seconds']) == {'data', 'sid', 'midtrain', 'candidates'}
  delta = block['recall@10'] - summary['baselines']['popularity']['recall@10']
  deltas = block['deltas'].get('lm-popularity')
  assert (deltas is None) == (source == 'popularity')
  assert deltas is None or deltas['recall@10'][0] == pytest.approx(delta)
  assert summary['lists'] == {'train': USERS, 'valid': USERS, 'test': USERS}


def test_a_run_that_was_cut_off_ends_in_the_same_lists(workdir, monkeypatch):
  whole, cut = workdir('whole'), workdir('cut')
  want = candidates.run(config(), whole)
  top_k, calls = retrieve.Retriever.top_k, []

  def killed(self, prompts, *args):
    calls.append(len(prompts))
    if len(calls) == 5:
      raise KeyboardInterrupt
    return top_k(self, prompts, *args)

  monkeypatch.setattr(retrieve.Retriever, 'top_k', killed)
  with pytest.raises(KeyboardInterrupt):
    candidates.run(config(), cut)
  assert not (cut / 'candidates' / 'DONE').exists()
  got = candidates.run(config(), cut)
  # 30 lists a split in chunks of 12: 3 x 3 calls, one of them killed.
  assert calls == [12, 12, 6, 12, 12, 12, 6, 12, 12, 6]
  for split in ('train', 'valid', 'test'):
    one = read(whole / 'candidates' / f'{split}.npz')
    two = read(cut / 'candidates' / f'{split}.npz')
    assert set(one) == set(two)
    for name in one:
      np.testing.assert_array_equal(one[name], two[name])
  assert {**got, 'seconds': 0} == {**want, 'seconds': 0}


def test_seen_items_stay_where_the_config_says_so(workdir, made):
  run = workdir('seen')
  candidates.run(config(source='popularity', exclude_seen=False), run)
  test = read(run / 'candidates' / 'test.npz')
  assert (test['candidates'] == test['candidates'][:1]).all()


def test_lists_that_cannot_be_filled_are_an_error(workdir):
  with pytest.raises(ValueError, match="User 'u00' gets 19 .*candidates.k=20"):
    candidates.run(
      config(source='popularity', k=20, width=20), workdir('short')
    )


@pytest.mark.parametrize(
  'section, message',
  [
    ({'source': 'oracle'}, "source is 'oracle'"),
    ({'baselines': ['random']}, "names \\['random'\\]"),
    ({'width': 9}, 'width is 9, but lists of 10'),
    ({'chunk': 0}, 'chunk is 0'),
    ({'beams': 3}, 'no setting CandidatesConfig.beams'),
  ],
)
def test_what_the_config_refuses(section, message):
  with pytest.raises(ValueError, match=message):
    config_lib.build(candidates.CandidatesConfig, config(**section).candidates)


@pytest.mark.slow
def test_sasrec_as_source_and_baseline(workdir):
  run = workdir('sasrec')
  summary = candidates.run(
    config(
      source='sasrec',
      baselines=['popularity', 'sasrec'],
      sasrec={'max_epochs': 2, 'width': 8, 'layers': 1},
    ),
    run,
  )
  own = dict(summary['retrieval'])
  assert set(own.pop('deltas')) == {'sasrec-popularity'}
  assert own.pop('intervals').keys() == own.keys() - {
    'n', 'illegal_rate', 'prefix_recall@10'
  }  # fmt: skip
  assert own == summary['baselines']['sasrec'] and own['illegal_rate'] == 0
  assert (run / 'candidates' / 'sasrec' / 'best').exists()
