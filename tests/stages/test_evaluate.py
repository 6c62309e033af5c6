"""The evaluation stage over a made-up run, its models replaced by rules."""

import ml_collections
import numpy as np
import pytest

from gr2_jax import files
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.data import stored
from gr2_jax.rank import evidence
from gr2_jax.ranker import ranker, ranking
from gr2_jax.stages import answers as answers_lib
from gr2_jax.stages import evaluate
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film <{i}>', (('Drama', 'Comedy')[i % 2],))
  for i in range(20)
]
USERS, K = 12, 4


class _Model:
  """Turns every list round; the answer to its third list is not valid.

  SFT's keeps each list as its prompt shows it.
  """

  def __init__(self, stage, mode, calls, alone):
    self.stage, self.mode, self.calls, self.alone = stage, mode, calls, alone

  def rank(self, histories, candidates, batch_size, desc, columns, shown):
    assert len(histories) == len(candidates) and batch_size == 64
    assert columns.shape[:2] == (len(candidates), K)
    name = desc.removeprefix('evaluate, ')
    shuffled = name.endswith('_shuffled')
    assert (shown is not None) == shuffled
    modes = {'direct': ranking.DIRECT, 'list': ranking.LIST}
    assert self.mode == modes.get(name, ranking.EXPLAINED)
    assert name in modes or name.removesuffix('_shuffled') == self.stage
    self.calls.append((name, len(candidates)))
    if self.calls.count(('rl', 5)) == 2 and self.calls[0] == 'kill':
      raise KeyboardInterrupt
    shown = candidates if shown is None else shown
    return [
      ranking.Ranking(
        order=items[::-1] if i != 2 and self.stage == 'rl' else seen,
        explanation=f'because of <b>{self.stage}</b>',
        explanation_titles='',
        valid=i != 2,
        tokens=3 if self.mode == ranking.DIRECT else 7,
        prompt_tokens=100,
        # The incoming order.
        alone=items if self.alone and self.mode != ranking.LIST else None,
      )
      for i, (items, seen) in enumerate(zip(candidates, shown, strict=True))
    ]


def _lists(dataset, splits):
  """Lists whose target stands at place user % (K + 1); K means nowhere."""
  users, positions = splits.examples['test']
  targets = dataset.flat[dataset.offsets[users] + positions]
  rng = np.random.default_rng(0)
  rows, places = [], []
  for user, target in enumerate(targets):
    others = [i for i in rng.permutation(20) if i != target][:K]
    place = user % (K + 1)
    if place < K:
      others[place] = target
    rows.append(others)
    places.append(place if place < K else -1)
  return {
    'user': users,
    'position': positions,
    'candidates': np.array(rows, np.int32),
    'scores': np.zeros((USERS, K), np.float32),
    'target': np.array(places, np.int32),
  }


def _summaries(dataset):
  retrieval = {
    'n': USERS,
    'recall@5': 0.5,
    'recall@10': 0.75,
    'ndcg@5': 0.25,
    'ndcg@10': 0.3,
    'illegal_rate': 0.0,
  }
  return {
    'data': {'name': 'made-up', **dataset.counts, 'sha256': dataset.sha256},
    'sid': {
      'uniqueness': 1.0,
      'collisions': 0,
      'perplexity': [3.0],
      'dead_codes': [0],
      'mse': 0.1,
    },
    'midtrain': {'perplexity': {'next_item': 9.0}},
    'candidates': {
      'source': 'popularity',
      'k': K,
      'retrieval': {**retrieval, 'deltas': {}},
      'baselines': {'popularity': retrieval},
      'hit_rate': {'test': 0.8},
      'lists': {'test': USERS},
    },
    'traces': {'teacher': 'rules', 'accepted': 3},
    'sft': {'traces': 3},
    'rl': {'updates': 2, 'tokens_per_second_first': 123.4},
    'direct': {'steps': 0},
  }


@pytest.fixture
def run(tmp_path, monkeypatch):
  rng = np.random.default_rng(1)
  sequences = {f'u{u:02d}': rng.permutation(20)[:8] for u in range(USERS)}
  dataset = dataset_lib.from_sequences('made-up', ITEMS, sequences)
  monkeypatch.setattr(stored, 'load', lambda directory: dataset)
  splits = splits_lib.make(dataset, splits_lib.SplitConfig())
  for stage, summary in _summaries(dataset).items():
    directory = tmp_path / stage
    directory.mkdir()
    files.write_json(directory / 'summary.json', {**summary, 'seconds': 1.5})
    files.write_json(directory / 'DONE', {'fingerprint': stage})
  (tmp_path / 'rl' / 'metrics.jsonl').write_text(
    '{"step": 1, "reward": 0.1}\n{"step": 2, "reward": 0.2}\n'
  )
  files.atomic_savez(
    tmp_path / 'sid' / 'sids.npz',
    sids=np.stack([np.arange(20) // 5, np.arange(20) % 5], axis=1),
  )
  vocab = vocab_lib.Vocab.train(wording.corpus(ITEMS), 400, levels=2, codes=5)
  vocab.save(tmp_path / 'midtrain' / 'vocab')
  files.atomic_savez(
    tmp_path / 'candidates' / 'test.npz', **_lists(dataset, splits)
  )
  calls = []
  monkeypatch.setattr(
    ranker,
    'load',
    lambda workdir, stage, mesh, mode: _Model(
      stage, mode, calls, config.answer.ranking == 'likelihood'
    ),
  )
  config = ml_collections.ConfigDict(
    {
      'seed': 3,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'split': {}},
      'text': {'prompt': {'max_candidates': K}},
      'candidates': {'source': 'popularity'},
      'answer': {'ranking': 'list'},
      'sft': {'weights': {'answer': 1.0}},
      'rl': {'constrain': True},
      'evaluate': {'chunk': 5, 'examples': 3, 'shuffled_lists': 6},
    }
  )
  return tmp_path, config, calls


def _report(workdir):
  report = files.read_json(workdir / 'report.json')
  report.pop('seconds')
  return report


def test_the_report_has_the_fixed_names_and_the_right_numbers(run):
  workdir, config, _ = run
  evaluate.run(config, workdir)
  report = files.read_json(workdir / 'report.json')
  assert set(report['dataset']) == {
    'name',
    'users',
    'items',
    'interactions',
    'sha256',
  }
  assert report['seed'] == 3 and report['teacher'] == 'rules'
  assert report['config']['seed'] == 3 and report['commit']
  assert report['seconds']['rl'] == 1.5 and 'evaluate' in report['seconds']
  assert report['retrieval']['recall@10'] == 0.75
  assert (report['lists'], report['hit_rate']) == (
    {'test': USERS},
    {'test': 0.8},
  )
  page = (workdir / 'report.html').read_text()
  assert 'which are re-ranked: 10 of 12 to test.' in page
  assert report['rl'] == {'updates': 2}
  rerank = report['rerank']
  # Users 4 and 9 have no target in their list.
  assert rerank['n'] == 10 and rerank['k'] == K and rerank['hit_rate'] == 0.8
  assert 0 < rerank['coverage'] <= 1 and 0 < rerank['top_share'] <= 1
  assert report['verdict'].startswith('The re-ranker (rl)')
  assert report['warnings'][0].startswith('Only 10 test lists')
  systems = rerank['systems']
  # Targets at 0 1 2 3 0 1 2 3 0 1.
  assert systems['prerank']['recall@1'] == 0.3
  assert systems['prerank']['identity_rate'] == 1.0
  assert systems['sft']['identity_rate'] == 0.8
  # Turned round: 3 2 (2: not valid) 0 3 2 1 (3: not valid) 3 2.
  assert systems['rl']['recall@1'] == 0.1
  assert systems['rl']['valid_rate'] == 0.8
  assert systems['rl']['identity_rate'] == 0.0
  assert systems['rl']['answer_tokens'] == 7
  assert systems['direct']['answer_tokens'] == 3
  assert systems['direct']['recall@1'] == 0.1
  assert 'answer_tokens' not in systems['prerank']
  assert {'random', 'popularity'} <= set(systems)
  assert set(rerank['deltas']) >= {'rl-prerank', 'rl-sft'}
  assert len(rerank['deltas']['rl-sft']['ndcg@3']) == 3
  said = report['explanations']
  assert set(said) == {'sft', 'rl'}
  assert said['rl']['explanations'] == 10 and said['rl']['citing'] == 0
  # because of b rl b, ten times.
  assert said['rl']['distinct_1'] == 4 / 50
  page = (workdir / 'report.html').read_text()
  assert page.count('class="example"') == 3
  assert 'data-chart="rl/Reward"' in page
  assert 'because of &lt;b&gt;rl' in page and 'Film &lt;' in page


def test_position_bias_is_what_shuffled_candidates_cost(run):
  workdir, config, _ = run
  config.rl.constrain = False
  evaluate.run(config, workdir)
  report = files.read_json(workdir / 'report.json')['rerank']
  assert 'direct' not in report['systems']
  bias = report['shuffled']
  assert bias['n'] == 6 and set(bias) == {'n', 'sft', 'rl'}
  # SFT's model keeps every list as it is shown: its shuffled answers are the
  # shuffled lists.
  with np.load(workdir / 'candidates' / 'test.npz') as arrays:
    keys = dict(zip(arrays['user'], arrays['target'], strict=True))
    items = dict(zip(arrays['user'], arrays['candidates'], strict=True))
  answers = list(
    files.read_jsonl(workdir / 'evaluate' / 'answers_sft_shuffled.jsonl')
  )
  gained = []
  for answer in answers:
    user = answer['user']
    assert sorted(answer['order']) == sorted(items[user])
    target = items[user][keys[user]]
    gained.append(int(answer['order'][0] == target) - int(keys[user] == 0))
  assert np.isclose(bias['sft']['recall@1'][0], np.mean(gained))
  assert any(a['order'] != items[a['user']].tolist() for a in answers)


def test_shuffled_lists_keep_their_items_and_padding():
  rng = np.random.default_rng(0)
  candidates = np.stack([rng.permutation(20)[:6] for _ in range(50)])
  candidates[::3, 4:] = -1
  shuffled = answers_lib.shuffle(candidates, seed=1)
  np.testing.assert_array_equal(shuffled >= 0, candidates >= 0)
  np.testing.assert_array_equal(np.sort(shuffled), np.sort(candidates))
  # The first item comes to each of four places about as often.
  places = (shuffled == candidates[:, :1]).argmax(axis=1)
  assert set(places) >= set(range(4))
  again = answers_lib.shuffle(candidates, seed=1)
  np.testing.assert_array_equal(again, shuffled)
  assert (answers_lib.shuffle(candidates, seed=2) != shuffled).any()


@pytest.fixture
def with_columns(run):
  """The run with utilities: 'follow' marks the true item of every list."""
  workdir, config, calls = run
  names = evidence.NAMES
  with np.load(workdir / 'candidates' / 'test.npz') as arrays:
    fields = dict(arrays)
  features = np.zeros((USERS, K, len(names)), np.float32)
  follow = np.arange(K) == fields['target'][:, None]
  # With another column, so much that the rules follow it, too, wherever the
  # true item stood.
  features[..., names.index('follow')] = 4.0 * follow
  features[..., names.index('content')] = follow
  features[..., names.index('log_rank')] = -np.log1p(np.arange(K))
  for split in ('train', 'test'):
    path = workdir / 'candidates' / f'{split}.npz'
    files.atomic_savez(path, **fields, features=features)
  files.write_json(
    workdir / 'candidates' / 'evidence.json',
    {'names': list(names), 'scales': [1.0] * len(names)},
  )
  config.answer.ranking = 'likelihood'
  return workdir, config, calls


def test_utilities_bring_systems_to_be_compared_with(with_columns):
  workdir, config, calls = with_columns
  evaluate.run(config, workdir)
  rerank = files.read_json(workdir / 'report.json')['rerank']
  systems = rerank['systems']
  assert list(systems) == [
    'prerank', 'random', 'popularity', 'rules', 'evidence', 'sft', 'rl',
    'rl_alone', 'direct', 'list',
  ]  # fmt: skip
  # What the columns say is right.
  assert systems['evidence']['recall@1'] == systems['rules']['recall@1'] == 1
  # The likelihood alone keeps the incoming order, here.
  assert systems['rl_alone']['identity_rate'] == 0.8
  assert systems['rl_alone']['recall@1'] == systems['prerank']['recall@1']
  assert systems['direct']['answer_tokens'] == 3
  assert set(rerank['deltas']) == {
    'rl-prerank', 'rl_alone-prerank', 'rl-evidence', 'rl-sft', 'direct-rl',
  }  # fmt: skip
  assert rerank['deltas']['rl_alone-prerank']['ndcg@5'] == [0, 0, 0]
  (delta, *_) = rerank['deltas']['rl-evidence']['recall@1']
  assert delta == pytest.approx(systems['rl']['recall@1'] - 1)
  assert set(rerank['shuffled']) == {'n', 'sft', 'rl'}


def test_the_papers_lists_are_asked_for_where_they_were_trained(with_columns):
  workdir, config, calls = with_columns
  config.sft.weights.answer = 0.0
  evaluate.run(config, workdir)
  systems = files.read_json(workdir / 'report.json')['rerank']['systems']
  assert 'list' not in systems and 'direct' in systems
  assert not [call for call in calls if call[0] == 'list']


def test_a_killed_run_ends_in_the_same_report(run):
  workdir, config, calls = run
  evaluate.run(config, workdir)
  whole = _report(workdir)
  page = (workdir / 'report.html').read_text()
  assert ('direct', 5) in calls
  for path in (workdir / 'evaluate').iterdir():
    if path.name != 'config.json':
      path.unlink()
  calls[:] = ['kill']
  with pytest.raises(KeyboardInterrupt):
    evaluate.run(config, workdir)
  assert calls == ['kill', ('sft', 5), ('sft', 5), ('rl', 5), ('rl', 5)]
  calls.clear()
  evaluate.run(config, workdir)
  assert calls == [
    ('rl', 5), ('direct', 5), ('direct', 5),
    ('sft_shuffled', 3), ('sft_shuffled', 3),
    ('rl_shuffled', 3), ('rl_shuffled', 3),
  ]  # fmt: skip
  assert _report(workdir) == whole
  again = (workdir / 'report.html').read_text()
  cut = lambda text: text.split('<h2>Re-ranking')[1].split('<h2>Run')[0]
  assert cut(again) == cut(page)


def test_fewer_lists_when_asked(run):
  workdir, config, _ = run
  config.evaluate.max_lists = 4
  assert evaluate.run(config, workdir)['n'] == 4


def test_no_hit_is_an_error(run):
  workdir, config, _ = run
  path = workdir / 'candidates' / 'test.npz'
  with np.load(path) as arrays:
    fields = dict(arrays)
  files.atomic_savez(path, **{**fields, 'target': np.full(USERS, -1)})
  with pytest.raises(ValueError, match='No test list holds its target'):
    evaluate.run(config, workdir)
