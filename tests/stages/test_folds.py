"""Cross-fitted lists: who saw whom, what is kept, runs that were cut off."""

import shutil

import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import config as config_lib
from gr2_jax import files, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.data import stored
from gr2_jax.decode import retrieve
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, io
from gr2_jax.run import artifacts, runner, training
from gr2_jax.stages import candidates, folds
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {i}', (('Drama', 'Comedy')[i % 2],))
  for i in range(25)
]
USERS, LENGTH, K, LAST = 16, 9, 4, 3
SPLIT = {'kind': 'leave_one_out'}
LM = {
  **{'width': 16, 'layers': 1, 'heads': 2, 'kv_heads': 1},
  **{'head_dim': 8, 'mlp_dim': 16, 'bf16_matmul': False},
}
PHASE = {'batch_size': 8, 'length': 96, 'lr': 1e-2, 'log_every': 1}


def sequences():
  rng = np.random.default_rng(0)
  return [rng.permutation(25)[:LENGTH] for _ in range(USERS)]


def dataset(rows):
  return dataset_lib.from_sequences(
    'made-up', ITEMS, {f'u{u:02d}': row for u, row in enumerate(rows)}
  )


def config(**section):
  section = {
    **{'k': K, 'width': 10, 'batch_size': 8, 'chunk': 10},
    **{'baselines': ['popularity'], 'folds': 2, 'fold_positions': LAST},
    **section,
  }
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'split': SPLIT},
      'sid': {'codes': 5},
      'text': {'prompt': {'max_candidates': K, 'retrieval_items': 5}},
      'lm': LM,
      'midtrain': {
        'weights': {'next_item': 0.7, 'persona': 0.2, 'item_text': 0.1},
        'new_rows': {'steps': 2, 'ckpt_every': 1, **PHASE},
        'all': {'steps': 4, 'ckpt_every': 2, **PHASE},
        'tasks': {'stride': 2, 'persona_items': 2, 'description_tokens': 8},
        'eval_examples': 8,
      },
      'candidates': section,
    }
  )


@pytest.fixture(scope='module')
def before(tmp_path_factory):
  """A directory with the finished stages before this one."""
  root = tmp_path_factory.mktemp('before')
  for stage in ('data', 'sid', 'midtrain'):
    (root / stage).mkdir()
    files.write_json(root / stage / 'DONE', {'fingerprint': stage})
    files.write_json(root / stage / 'summary.json', {'seconds': 1.5})
  made = dataset(sequences())
  counts = {**made.counts, 'name': 'made-up', 'sha256': made.sha256}
  files.write_json(root / 'data' / 'summary.json', {**counts, 'seconds': 1.5})
  sids = np.stack([np.arange(25) // 5, np.arange(25) % 5], axis=1)
  files.atomic_savez(root / 'sid' / 'sids.npz', sids=sids)
  vocab = vocab_lib.Vocab.train(wording.corpus(ITEMS), 320, levels=2, codes=5)
  vocab.save(root / 'midtrain' / 'vocab')
  shape = lm_config.LMConfig(vocab_size=vocab.size, **LM)
  mesh = sharding.make_mesh()
  params = decoder.init(shape, mesh, sharding.DECODE_RULES, jax.random.key(0))
  io.save(root / 'midtrain' / 'model', shape, params)
  return root


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, before):
  """`workdir(name, rows)`: a run of its own on the stages before.

  The models of its folds are copied to `kept` before they are removed.
  """
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  drop = folds._drop_models

  def keep(directory):
    if (directory / 'model').exists():
      copy = directory.parent.parent / 'kept' / directory.name
      shutil.copytree(directory, copy, dirs_exist_ok=True)
    drop(directory)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, 'make_mesh', lambda **axes: mesh)
    patch.setattr(folds, '_drop_models', keep)

    def make(name, rows=None):
      made = dataset(sequences() if rows is None else rows)
      patch.setattr(stored, 'load', lambda directory: made)
      run = tmp_path_factory.mktemp(name)
      for stage in before.iterdir():
        (run / stage.name).symlink_to(stage)
      return run

    yield make


@pytest.fixture(scope='module')
def whole(workdir):
  """A run whose lists are the language model's, and its summary."""
  run = workdir('whole')
  return run, candidates.run(config(), run)


def read(path):
  with np.load(path) as arrays:
    return dict(arrays)


def divided(workdir, seed=3, **section):
  made = config(**section)
  cfg = config_lib.build(candidates.CandidatesConfig, made.candidates)
  return folds.divide(cfg, artifacts.Artifacts(made, workdir), seed)


def test_every_user_is_in_one_fold_and_unknown_to_its_retriever(workdir):
  made = divided(workdir('divided'), folds=3)
  whole = np.concatenate([fold.users for fold in made])
  assert sorted(whole) == list(range(USERS)) and len(made[0].users) == 6
  for fold in made:
    assert not fold.others.train_end[fold.users].any()
    rest = np.setdiff1d(np.arange(USERS), fold.users)
    # Nine items, of which test, validation and training hold out one each.
    assert (fold.others.train_end[rest] == 6).all()
    for user, _ in fold.others.examples.values():
      assert user.tolist() == rest.tolist()
    user, position = fold.positions
    assert user.tolist() == np.repeat(fold.users, LAST).tolist()
    assert position.tolist() == [3, 4, 5] * len(fold.users)
  user, position = divided(workdir('all'), fold_positions=0)[0].positions
  assert position.tolist() == [1, 2, 3, 4, 5] * len(np.unique(user))


def test_short_users_have_fewer_positions():
  rows = dataset([range(n) for n in (9, 4, 3, 1)])
  made = splits_lib.make(rows, splits_lib.SplitConfig(min_history=2))
  assert made.train_end.tolist() == [6, 2, 2, 1]
  user, position = made.inner(np.array([0, 1, 3]), 2, 0)
  assert user.tolist() == [0] * 4 and position.tolist() == [2, 3, 4, 5]
  user, position = made.inner(np.array([0, 2]), 1, 9)
  assert user.tolist() == [0] * 5 + [2] and position[-1] == 1


@pytest.mark.parametrize('source', ['lm', 'popularity'])
def test_lists_of_folds(workdir, whole, source):
  run, summary = whole
  if source != 'lm':
    run = workdir(source)
    summary = candidates.run(config(source=source), run)
  arrays = read(run / 'candidates' / 'folds.npz')
  train = read(run / 'candidates' / 'train.npz')
  assert set(arrays) == {*train, 'fold'}
  assert all(arrays[name].dtype == train[name].dtype for name in train)
  assert arrays['candidates'].shape == (len(arrays['user']), K)
  rows = sequences()
  keys = list(zip(arrays['user'], arrays['position'], strict=True))
  assert keys == sorted(keys)
  for index, (user, position) in enumerate(keys):
    shown = arrays['candidates'][index].tolist()
    assert 3 <= position < 6
    assert shown[arrays['target'][index]] == rows[user][position]
    assert not set(shown) & set(rows[user][:position])
  fold_of = dict(zip(arrays['user'], arrays['fold'], strict=True))
  assert [fold_of[user] for user, _ in keys] == arrays['fold'].tolist()
  for fold, block in summary['folds'].items():
    hits = int((arrays['fold'] == int(fold)).sum())
    assert block == {
      'lists': 8 * LAST,
      'hits': hits,
      'hit_rate': pytest.approx(hits / (8 * LAST)),
    }
    assert hits
  assert set(summary['folds']) == {'0', '1'}
  assert summary['lists']['train'] == USERS
  report = files.read_json(run / 'retrieval.json')
  assert report['folds'] == summary['folds']
  # Trained models are gone, what they said of their training is not.
  assert not list(run.glob('candidates/fold*/**/checkpoints'))
  assert not list(run.glob('candidates/fold*/model'))
  if source == 'lm':
    lines = files.read_jsonl(run / 'candidates' / 'fold1' / 'metrics.jsonl')
    assert [line['step'] for line in lines] == [1, 2, 3, 4]


def test_popularity_counts_the_others_only(workdir):
  run, rows = workdir('popular'), sequences()
  candidates.run(config(source='popularity', exclude_seen=False), run)
  arrays = read(run / 'candidates' / 'folds.npz')
  seed = runner.stage_seed(0, 'candidates')
  for fold, other in ((0, 1), (1, 0)):
    own = arrays['fold'] == fold
    others = divided(run, seed)[other].users
    assert own.any() and not set(arrays['user'][own]) & set(others)
    seen = np.concatenate([rows[user][:6] for user in others])
    best = np.argsort(-np.bincount(seen, minlength=25), kind='stable')[:K]
    np.testing.assert_array_equal(
      arrays['candidates'][own], np.tile(best, (own.sum(), 1))
    )


def weights(directory):
  mesh = sharding.make_mesh()
  return io.load(directory / 'model', mesh, sharding.TRAIN_RULES)[1]


def test_what_a_user_did_changes_nothing_in_its_retriever(workdir, whole):
  one, rows = whole[0], sequences()
  for user in divided(one, runner.stage_seed(0, 'candidates'))[0].users:
    rows[user] = np.roll(24 - rows[user], 1)
  two = workdir('two', rows)
  candidates.run(config(), two)
  for fold, equal in ((0, True), (1, False)):
    before, after = (run / 'kept' / f'fold{fold}' for run in (one, two))
    for name in ('metrics.jsonl', 'new_rows/metrics.jsonl'):
      assert ((before / name).read_text() == (after / name).read_text()) == (
        equal
      )
    bits = jax.tree.map(np.array_equal, weights(before), weights(after))
    assert all(jax.tree.leaves(bits)) == equal


SASREC = {'max_epochs': 1, 'every': 1, 'width': 8, 'layers': 1, 'heads': 1}


def test_no_column_knows_the_user_or_its_target(workdir):
  section = {
    'source': 'popularity',
    'baselines': ['popularity', 'sasrec'],
    'sasrec': SASREC,
    # Many hits.
    'k': 9,
    'fold_positions': 0,
  }
  rows = sequences()
  one = workdir('first')
  candidates.run(config(**section), one)
  own = divided(one, runner.stage_seed(0, 'candidates'))[0].users
  for user in own:
    unseen = np.setdiff1d(range(25), rows[user])
    rows[user] = np.append(rows[user][:5], unseen)[:LENGTH]
  two = workdir('second', rows)
  candidates.run(config(**section), two)
  names = ['score', 'log_rank', 'popularity', 'content', 'follow', 'sasrec']
  told = files.read_json(one / 'candidates' / 'evidence.json')
  assert told['names'] == names and len(told['scales']) == len(names)
  before, after = (read(run / 'candidates/folds.npz') for run in (one, two))
  # What is behind position 5 is others in the second run, also for training.
  kept = [(x['fold'] == 0) & (x['position'] < 5) for x in (before, after)]
  assert 5 < kept[0].sum() < (before['fold'] == 0).sum()
  # The columns' units, one number for all lists, are of all users.
  units = [
    np.float64(files.read_json(run / 'candidates' / 'evidence.json')['scales'])
    for run in (one, two)
  ]
  own = [
    x.pop('features')[k] * unit
    for x, k, unit in zip((before, after), kept, units, strict=True)
  ]
  # float32 divided by a unit and multiplied again.
  np.testing.assert_allclose(*own, rtol=1e-5, atol=1e-6)
  assert (own[0].std(axis=(0, 1)) > 0.01).all()
  for name in before:
    np.testing.assert_array_equal(before[name][kept[0]], after[name][kept[1]])
  trains = [read(run / 'candidates' / 'train.npz') for run in (one, two)]
  other = np.setdiff1d(np.arange(USERS), own)
  assert (trains[0]['features'] != trains[1]['features'])[other].any()


def test_columns_count_the_others_only(whole):
  run, _ = whole
  store = artifacts.Artifacts(config(), run)
  store.__dict__['dataset'] = dataset(sequences())
  found, rows = store.lists('folds'), sequences()
  assert found.features.shape == (len(found), K, len(store.evidence_names))
  column = store.evidence_names.index('popularity')
  for fold in divided(run, runner.stage_seed(0, 'candidates')):
    own = found.take(found.fold == fold.index)
    others = np.setdiff1d(np.arange(USERS), fold.users)
    assert len(own) and not set(own.user) & set(others)
    seen = np.concatenate([rows[user][:6] for user in others])
    logs = np.log1p(np.bincount(seen, minlength=25))[own.candidates]
    logs = logs - logs.mean(axis=1, keepdims=True)
    # Their unit is that of the final lists.
    unit = store.evidence_scales[column]
    np.testing.assert_allclose(
      own.features[..., column], logs / unit, atol=1e-5
    )
  final = store.lists('test')
  assert (final.fold == -1).all()
  counts = np.log1p(np.bincount(np.ravel([r[:6] for r in rows]), minlength=25))
  order = np.argsort(final.features[..., column], axis=1)
  sorted_counts = np.take_along_axis(counts[final.candidates], order, axis=1)
  assert (np.diff(sorted_counts) >= 0).all()


def contents(run):
  found = run / 'candidates'
  return {path.name: path.read_bytes() for path in found.glob('*.npz')}


def test_a_run_that_was_cut_off_ends_in_the_same_lists(
  workdir, whole, monkeypatch
):
  (run, want), cut = whole, workdir('cut')
  left = {'losses': 2, 'searches': 8}
  asked = dict.fromkeys(left, 0)

  def killed(kind, make):
    def call(*args):
      asked[kind] += 1
      if asked[kind] == left[kind]:
        raise KeyboardInterrupt
      return make(*args)

    return call

  # In the training of fold 0, behind its first checkpoint of two.
  nll = killed('losses', training.mean_nll)
  monkeypatch.setattr(training, 'mean_nll', nll)
  # Behind the first chunk of fold 0: of 16 lists each split has two, of 24
  # each fold three.
  top_k = killed('searches', retrieve.Retriever.top_k)
  monkeypatch.setattr(
    retrieve.Retriever, 'top_k', lambda self, *args: top_k(self, *args)
  )
  for found in ({'losses': 2, 'searches': 6}, {'losses': 3, 'searches': 8}):
    with pytest.raises(KeyboardInterrupt):
      candidates.run(config(), cut)
    assert asked == found
    assert not (cut / 'candidates' / 'DONE').exists()
  got = candidates.run(config(), cut)
  assert asked == {'losses': 5, 'searches': 8 + 2 + 3}
  assert contents(cut) == contents(run) and len(contents(cut)) == 4
  assert {**got, 'seconds': 0} == {**want, 'seconds': 0}


def test_without_folds_the_other_lists_are_the_same(workdir):
  one, two = workdir('with'), workdir('without')
  candidates.run(config(source='popularity'), one)
  summary = candidates.run(config(source='popularity', folds=0), two)
  assert 'folds' not in summary
  with_folds = contents(one)
  del with_folds['folds.npz']
  assert contents(two) == with_folds


@pytest.mark.parametrize(
  'section, message',
  [
    ({'folds': 1}, 'folds is 1: .* give 2 or more'),
    ({'folds': -2}, 'folds is -2'),
    ({'source': 'slates'}, "source='slates' all lists come from the data"),
    ({'fold_steps': 0.0}, 'fold_steps is 0.0; .* above 0, at most 1'),
    ({'fold_steps': 1.5}, 'fold_steps is 1.5'),
    ({'fold_positions': -1}, 'fold_positions is -1'),
    ({'folds': USERS + 1}, "folds is 17, but 'made-up' has 16 users"),
  ],
)
def test_what_cannot_work_is_refused(workdir, section, message):
  with pytest.raises(ValueError, match=message):
    candidates.run(config(**section), workdir('refused'))


@pytest.mark.parametrize(
  'lengths, message',
  [
    # Four items: one is left to train on, and a target needs one before it.
    ([4] * 6, 'None of the 3 users of fold 0 has a training position with 1'),
    # Nobody's training part has two items; those of one have no target.
    ([9, 1], 'Beside fold 0 there are 0 users .* and 0 validation positions'),
  ],
)
def test_folds_that_give_no_lists_are_refused(workdir, lengths, message):
  run = workdir('short', [range(n) for n in lengths])
  with pytest.raises(ValueError, match=message):
    candidates.run(config(), run)
