"""Slates from the data to the report: a made-up run over graded lists."""

import dataclasses
import itertools

import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import config as config_lib
from gr2_jax import files, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import stored
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, io
from gr2_jax.rank import evidence
from gr2_jax.report import terminal
from gr2_jax.run import artifacts
from gr2_jax.stages import pipeline, slates
from gr2_jax.teacher import rationale
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording
from tests.integration import small

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {i}', (('Drama', 'Comedy')[i % 2],))
  for i in range(25)
]
USERS, LENGTH, K = 24, 12, 5
SPLIT = {'kind': 'last_n', 'n_train': 4, 'n_valid': 2, 'n_test': 2}


@pytest.fixture(scope='module')
def made():
  """Slates of two positives, before the positions 4, 6, 8 and 10 of each."""
  rng = np.random.default_rng(0)
  sequences = {f'u{u:02d}': rng.permutation(25)[:LENGTH] for u in range(USERS)}
  dataset = dataset_lib.from_sequences('made-up', ITEMS, sequences)
  served = []
  for user, position in itertools.product(range(USERS), (4, 6, 8, 10)):
    sequence = dataset.sequence(user)
    others = np.setdiff1d(np.arange(25), sequence)
    shown = np.append(
      sequence[position : position + 2],
      rng.permutation(others)[: 1 + user % (K - 2)],
    )
    order = rng.permutation(len(shown))
    labels = np.where(order == 0, 2, order == 1)
    served.append(
      dataset_lib.Slate(
        user, position, tuple(shown[order].tolist()), tuple(labels.tolist())
      )
    )
  one_sided = dataset_lib.Slate(0, 4, (1, 2), (0, 0))
  return dataclasses.replace(dataset, slates=[*served, one_sided])


@pytest.fixture
def before(tmp_path, made, monkeypatch):
  """A run whose stages up to mid-training are finished, on one device."""
  monkeypatch.setattr(stored, 'load', lambda directory: made)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  monkeypatch.setattr(sharding, 'make_mesh', lambda **axes: mesh)
  config = _config()
  for stage, read, sections in (
    ('data', (), ('data',)),
    ('sid', ('data',), ('sid',)),
    ('midtrain', ('data', 'sid'), ('text', 'lm', 'midtrain')),
  ):
    small.finish(tmp_path, stage, read, **{s: config[s] for s in sections})
    files.write_json(tmp_path / stage / 'summary.json', {'seconds': 1.5})
  counts = {**made.counts, 'name': 'made-up', 'sha256': made.sha256}
  files.write_json(
    tmp_path / 'data' / 'summary.json', {**counts, 'seconds': 1.5}
  )
  sids = np.stack([np.arange(25) // 5, np.arange(25) % 5], axis=1)
  files.atomic_savez(tmp_path / 'sid' / 'sids.npz', sids=sids)
  lines = itertools.chain(wording.corpus(ITEMS), rationale.corpus())
  vocab = vocab_lib.Vocab.train(lines, 400, levels=2, codes=5)
  vocab.save(tmp_path / 'midtrain' / 'vocab')
  shape = lm_config.LMConfig(16, 1, 2, 2, 8, mlp_dim=16, vocab_size=vocab.size)
  params = decoder.init(shape, mesh, sharding.TRAIN_RULES, jax.random.key(0))
  io.save(tmp_path / 'midtrain' / 'model', shape, params)
  return tmp_path


def _config():
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'kind': 'generic', 'split': SPLIT},
      'sid': {},
      'lm': {},
      # SFT reads it for replay, which answers alone have not.
      'midtrain': {},
      'text': {'prompt': {'max_candidates': K, 'history_items': 3}},
      'answer': {'ranking': 'list'},
      'candidates': {
        'source': 'slates',
        'k': K,
        'width': 10,
        'baselines': ['popularity'],
      },
      'traces': {
        'attempts': 4,
        'explanation_tokens': 40,
        'rules': {'noise': 0.5},
      },
      'sft': {
        'train': {
          'steps': 2,
          'batch_size': 4,
          'length': 320,
          'lr': 1e-3,
          'dropout': 0.0,
        },
        'weights': {'answer': 1.0},
      },
      'rl': {
        'steps': 1,
        'lr': 1e-3,
        'constrain': True,
        'reward': 'ndcg',
        'prompts_per_step': 4,
        'group_size': 4,
        'max_new_tokens': 32,
        'explanation_tokens': 4,
        'max_rounds': 1,
        'rollouts_every': 1,
        'updates_per_rollout': 2,
        'explained_per_step': 0,
        'credit': 'answer',
        'alpha': 0.2,
      },
      'direct': {},
      'evaluate': {'examples': 2},
    }
  )


def test_lists_of_slates(made, tmp_path):
  config = _config()
  store = artifacts.Artifacts(config, tmp_path)
  store.__dict__['dataset'] = made
  (tmp_path / 'candidates').mkdir()
  block = slates.write(store, K, tmp_path / 'candidates')
  sizes = {'train': 2 * USERS, 'valid': USERS, 'test': USERS}
  assert block['lists'] == sizes and block['hit_rate']['test'] == 1
  assert block['slates'] == {
    'slates': 4 * USERS + 1, 'cut': 0, 'one_sided': 1, 'seen': 0,
    'straddling': 0,
  }  # fmt: skip
  for name, size in sizes.items():
    lists = store.lists(name)
    assert len(lists) == len(lists.hits()) == size
    assert (np.sort(lists.grades, axis=1)[:, -2:] == [1, 2]).all()
    rows = np.arange(size)
    assert (lists.grades[rows, lists.target] == 2).all()
    first = lists.candidates[rows, lists.target]
    next_items = made.flat[made.offsets[lists.user] + lists.position]
    np.testing.assert_array_equal(first, next_items)
    assert (lists.candidates < 0).any()


def test_columns_of_slates_become_evidence(made, tmp_path):
  """What a slate says of its items stands behind the columns of every run."""
  told = dataclasses.replace(
    made,
    slates=[
      dataclasses.replace(
        s, columns=(tuple(float(i) for i in s.items), (7.0,) * len(s.items))
      )
      for s in made.slates
    ],
    slate_columns=('item', 'same'),
  )
  store = artifacts.Artifacts(_config(), tmp_path)
  store.__dict__['dataset'] = told
  assert store.user_columns == ('item', 'same')
  (tmp_path / 'candidates').mkdir()
  slates.write(store, K, tmp_path / 'candidates')
  columns = evidence.Evidence(
    told,
    store.splits,
    evidence.EvidenceConfig(),
    extra_names=store.user_columns,
  )
  for name in ('train', 'valid', 'test'):
    lists = store.lists(name)
    with np.load(tmp_path / 'candidates' / f'{name}.npz') as stored:
      raw = stored['columns']
    real = lists.candidates >= 0
    np.testing.assert_array_equal(raw[real][:, 0], lists.candidates[real])
    np.testing.assert_array_equal(raw[real][:, 1], 7)
    np.testing.assert_array_equal(raw[~real], 0)
    histories = [
      store.history(user, position)
      for user, position in zip(lists.user, lists.position, strict=True)
    ]
    found = columns.columns(histories, lists.candidates, lists.scores, raw)
    *_, item, same = np.moveaxis(found, -1, 0)
    np.testing.assert_array_equal(same, 0)
    row, k = item[0][real[0]], real[0].sum()
    items = lists.candidates[0, :k]
    np.testing.assert_allclose(row, items - items.mean(), atol=1e-6)


def test_columns_of_slates_are_those_of_runs_that_rank_them(made, tmp_path):
  config = _config()
  config.candidates.source = 'lm'
  store = artifacts.Artifacts(config, tmp_path)
  store.__dict__['dataset'] = dataclasses.replace(made, slate_columns=('a',))
  assert store.user_columns == ()


def test_too_few_held_out_is_an_error(made, tmp_path):
  config = _config()
  config.data.split = {'kind': 'leave_one_out'}
  store = artifacts.Artifacts(config, tmp_path)
  store.__dict__['dataset'] = made
  with pytest.raises(ValueError, match="'train': 0.*data.split.kind='last_n'"):
    slates.write(store, K, tmp_path)


def test_from_slates_to_the_report(before, made):
  stages = ('candidates', 'traces', 'sft', 'rl', 'direct', 'evaluate')
  config_lib.save(_config(), before / 'config.json')
  for stage in stages:
    pipeline.STAGES[stage](_config(), before)
  found, traced, tuned, trained, *_ = (
    files.read_json(before / stage / 'summary.json') for stage in stages
  )
  assert found['source'] == 'slates' and found['retriever'] == 'lm'
  store = artifacts.Artifacts(_config(), before)
  lists = store.lists('train')
  assert store.evidence_names == evidence.NAMES
  assert lists.features.shape == (*lists.candidates.shape, 5)
  # In the median list a column's deviation is its unit.
  real = lists.candidates >= 0
  rows = zip(lists.features, real, strict=True)
  deviation = np.array([row[own].std(0) for row, own in rows])
  for each in deviation.T:
    assert np.median(each[each > 1e-6]) == pytest.approx(1, abs=1e-3)
  assert len(store.evidence_scales) == 5
  # Minus the place is the only score that a slate has.
  score, rank = lists.features[..., 0], lists.features[..., 1]
  assert (lists.features[~real] == 0).all() and (~real).any()
  assert (np.diff(np.where(real, score, -9.0), axis=1)[real[:, 1:]] < 0).all()
  assert (np.diff(np.where(real, rank, -9.0), axis=1)[real[:, 1:]] < 0).all()
  assert found['retrieval']['n'] == 2 * USERS
  assert tuned['traces'] == traced['accepted'] > 0
  best = {
    (s.user, s.timestamp): s.items[s.labels.index(2)]
    for s in made.slates
    if any(s.labels)
  }
  for trace in files.read_jsonl(before / 'traces' / 'traces.jsonl'):
    target = best[trace['user'], trace['position']]
    assert trace['target'] == target == trace['ranking'][0]
  # SFT reads half of the lists and RL the others.
  assert trained['lists'] == USERS and trained['valid_rate_last'] == 1
  # R_ndcg lies in 0..1; alpha comes on top, but alone for flawed identities.
  # Both are means that were rounded to four digits.
  assert 0 < trained['rank_reward_last'] < 1
  assert trained['reward_last'] <= trained['rank_reward_last'] + 0.2001

  report = files.read_json(before / 'report.json')
  assert report['slates'] == found['slates'] and report['source'] == 'slates'
  rerank = report['rerank']
  assert (rerank['n'], rerank['k'], rerank['hit_rate']) == (USERS, K, 1.0)
  assert set(rerank['deltas']['rl-prerank']) == {
    'recall@1', 'recall@3', 'recall@5', 'ndcg@3', 'ndcg@5', 'auc',
    'graded_ndcg',
  }  # fmt: skip
  assert {'auc', 'graded_ndcg'} < set(rerank['shuffled']['rl'])
  tested = [s for s in made.slates if s.timestamp == 10]
  expected = np.mean([_auc(s.labels) for s in tested])
  # AUCs are computed in float32.
  assert rerank['systems']['prerank']['auc'] == pytest.approx(expected, 1e-5)
  assert 'auc  graded_ndcg' in terminal.closing_table(report)
  page = (before / 'report.html').read_text()
  assert 'served slates (slates 97' in page and '<th>AUC</th>' in page
  assert 'The marked items are those' in page


def _auc(labels):
  pairs = [
    i < j
    for i, good in enumerate(labels)
    for j, bad in enumerate(labels)
    if good > 0 and bad == 0
  ]
  return np.mean(pairs)
