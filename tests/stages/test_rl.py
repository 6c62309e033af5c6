"""The RL stage of written lists: its files, and a run that was cut off."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import files, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import stored
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, io
from gr2_jax.rl import trainer
from gr2_jax.stages import direct, rl
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {i}', (('Drama', 'Comedy')[i % 2],))
  for i in range(25)
]
USERS, K = 40, 4


@pytest.fixture(scope='module')
def made():
  rng = np.random.default_rng(0)
  sequences = {f'u{u:02d}': rng.permutation(25)[:9] for u in range(USERS)}
  return dataset_lib.from_sequences('made-up', ITEMS, sequences)


def _write_lists(path, made, position, rng):
  targets = np.array([made.sequence(u)[position] for u in range(USERS)])
  candidates = np.stack([rng.permutation(25)[:K] for _ in range(USERS)])
  place = rng.integers(-1, K, USERS)  # Some lists lack their target.
  for row in range(USERS):
    candidates[row][candidates[row] == targets[row]] = -1
    if place[row] >= 0:
      candidates[row, place[row]] = targets[row]
    found = candidates[row][candidates[row] >= 0]
    place[row] = np.append(found, targets[row]).tolist().index(targets[row])
    place[row] = -1 if place[row] == len(found) else place[row]
    candidates[row] = np.append(found, np.full(K - len(found), -1))
  files.atomic_savez(
    path,
    user=np.arange(USERS, dtype=np.int32),
    position=np.full(USERS, position, np.int32),
    candidates=candidates.astype(np.int32),
    scores=np.zeros((USERS, K), np.float32),
    target=place.astype(np.int32),
  )


@pytest.fixture(scope='module')
def before(tmp_path_factory, made):
  """A directory with the finished stages before this one."""
  root = tmp_path_factory.mktemp('before')
  for stage in ('data', 'sid', 'midtrain', 'candidates', 'sft'):
    (root / stage).mkdir()
    files.write_json(root / stage / 'DONE', {'fingerprint': stage})
  sids = np.stack([np.arange(25) // 5, np.arange(25) % 5], axis=1)
  files.atomic_savez(root / 'sid' / 'sids.npz', sids=sids)
  vocab = vocab_lib.Vocab.train(wording.corpus(ITEMS), 320, levels=2, codes=5)
  vocab.save(root / 'midtrain' / 'vocab')
  shape = lm_config.LMConfig(16, 1, 2, 2, 8, mlp_dim=16, vocab_size=vocab.size)
  mesh = sharding.make_mesh()
  for seed, stage in enumerate(('sft', 'midtrain')):
    key = jax.random.key(seed)
    params = decoder.init(shape, mesh, sharding.TRAIN_RULES, key)
    io.save(root / stage / 'model', shape, params)
  rng = np.random.default_rng(1)
  for split, position in (('train', 6), ('valid', 7)):
    _write_lists(root / 'candidates' / f'{split}.npz', made, position, rng)
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


def _config(**section):
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'split': {'kind': 'leave_one_out'}},
      'text': {'prompt': {'max_candidates': K}},
      'answer': {'ranking': 'list'},
      'rl': {
        'lists': 'train',
        'steps': 4,
        'lr': 1e-3,
        'prompts_per_step': 16,
        'group_size': 2,
        'max_new_tokens': 25,
        'explanation_tokens': 4,
        'overlong_buffer': 1,
        'checkpoint_every': 2,
        'updates_per_rollout': 2,
        'explained_per_step': 0,
        'credit': 'answer',
        'alpha': 0.2,
        'rollouts_every': 2,
        'valid_lists': 20,
        **section,
      },
    }
  )


def _params(workdir):
  mesh = sharding.make_mesh()
  _, params = io.load(workdir / 'rl' / 'model', mesh, sharding.TRAIN_RULES)
  return jax.device_get(params)


def test_files_and_a_resume_with_the_same_end(workdir, monkeypatch):
  whole = workdir('whole')
  summary = rl.run(_config(), whole)
  assert summary['valid_rate_last'] == 1 and summary['valid_lists'] == 16

  records = list(files.read_jsonl(whole / 'rl' / 'metrics.jsonl'))
  assert [r['step'] for r in records] == [1, 2, 3, 4]
  assert {'valid_ndcg@5', 'valid_recall@1'} <= set(records[1])
  # Of two validations the better one, of equals the first.
  scores = {
    r['step']: r['valid_ndcg@5'] for r in records if r['step'] in (2, 4)
  }
  best = max(scores, key=lambda step: (scores[step], -step))
  assert summary['best_step'] == best and summary['updates'] == 2 * best
  assert summary['valid_ndcg@5_exported'] == summary['valid_ndcg@5_best']
  samples = list(files.read_jsonl(whole / 'rl' / 'rollouts.jsonl'))
  assert [s['step'] for s in samples] == [1, 3]
  for sample in samples:
    assert len(sample['answers']) == 2
    for answer in sample['answers']:
      assert answer['valid']
      listed = json.loads(answer['text'].removesuffix('</s>'))
      assert 1 <= len(listed['recommendations']) <= K

  # Cut off in the third step, after the checkpoint of the second.
  cut, step = workdir('cut'), trainer.Trainer.step

  def dies(self, before, rounds):
    if int(before.step) == 2:
      raise KeyboardInterrupt
    return step(self, before, rounds)

  monkeypatch.setattr(trainer.Trainer, 'step', dies)
  with pytest.raises(KeyboardInterrupt):
    rl.run(_config(), cut)
  monkeypatch.setattr(trainer.Trainer, 'step', step)
  resumed = rl.run(_config(), cut)
  for result in (summary, resumed):
    result.pop('seconds')
  assert resumed == summary
  jax.tree.map(np.testing.assert_array_equal, _params(whole), _params(cut))
  assert list(files.read_jsonl(cut / 'rl' / 'rollouts.jsonl')) == samples
  texts = [(w / 'rl' / 'metrics.jsonl').read_text() for w in (whole, cut)]
  assert texts[0] == texts[1]


def test_settings_are_checked_before_anything_runs(workdir):
  path = workdir('bad')
  with pytest.raises(ValueError, match='multiple of 16'):
    rl.run(_config(prompts_per_step=8), path)


def test_distillation_in_place_of_sft(workdir, before):
  """From the mid-trained model, with a teacher's directory, without SFT."""
  path = workdir('distilled')
  (path / 'sft').unlink()
  section = {
    'start': 'midtrain',
    'kl': 0.5,
    'reference': str(before / 'sft' / 'model'),
  }
  with pytest.raises(FileNotFoundError, match="Run the stage 'sft'"):
    rl.run(_config(kl=0.5, reference='sft'), path)
  with pytest.raises(FileNotFoundError, match='No complete model in.*nowhere'):
    rl.run(_config(**(section | {'reference': '/nowhere'})), path)
  other = workdir('other')
  (other / 'sid').unlink()
  (other / 'sid').mkdir()
  sids = np.stack([np.arange(25) // 5, np.arange(25)[::-1] % 5], axis=1)
  files.atomic_savez(other / 'sid' / 'sids.npz', sids=sids)
  with pytest.raises(ValueError, match='other semantic IDs than'):
    teacher = str(other / 'sft' / 'model')
    rl.run(_config(**(section | {'reference': teacher})), path)
  rl.run(_config(**section, steps=2), path)
  records = list(files.read_jsonl(path / 'rl' / 'metrics.jsonl'))
  assert all(record['kl'] > 0 for record in records)
  # What it reads is part of the stage's identity.
  key = files.read_json(path / 'rl' / 'config.json')
  assert 'sft' not in key['inputs'] and len(key['external']) == 64
  trained = _params(path)
  mesh = sharding.make_mesh()
  _, given = io.load(before / 'midtrain' / 'model', mesh, sharding.TRAIN_RULES)
  gaps = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), trained, jax.device_get(given)
  )
  # Two steps of two updates at a rate of 1e-3.
  assert 0 < max(jax.tree.leaves(gaps)) < 0.01


def test_an_epoch_without_any_group_ends_the_run(workdir):
  """At temperature zero, nearly, all answers to a prompt are the same."""
  path = workdir('barren')
  summary = rl.run(_config(temperature=1e-6, steps=8), path)
  assert 'no group had rank rewards that differ' in summary['ended']
  assert summary['updates'] == 0
  # An epoch of at most 40 lists is over within two steps of 32 prompts.
  records = list(files.read_jsonl(path / 'rl' / 'metrics.jsonl'))
  assert [record['step'] for record in records] == [1, 2]
  mesh = sharding.make_mesh()
  _, given = io.load(path / 'sft' / 'model', mesh, sharding.TRAIN_RULES)
  jax.tree.map(
    np.testing.assert_array_equal, _params(path), jax.device_get(given)
  )


def test_a_second_round_without_explanations(workdir):
  path = workdir('direct')
  config = _config(steps=2)
  config.direct = {'steps': 0, 'lr': 1e-3, 'max_new_tokens': 21}
  with pytest.raises(FileNotFoundError, match="Run the stage 'rl'"):
    direct.run(config, path)
  rl.run(config, path)
  assert direct.run(config, path)['steps'] == 0
  assert not (path / 'direct' / 'model').exists()
  config.direct.steps = 2
  summary = direct.run(config, path, redo=True)
  # Three delimiters, an item in its wrappers, up to four of two codes, the end.
  assert summary['valid_rate_last'] == 1
  assert summary['answer_tokens_last'] <= 3 + 4 + K * 3 + 1
  for sample in files.read_jsonl(path / 'direct' / 'rollouts.jsonl'):
    for answer in sample['answers']:
      listed = json.loads(answer['text'].removesuffix('</s>'))
      first = listed['recommendations'][0]
      closing = f' First: <|sid_begin|>{first}<|sid_end|>'
      assert listed['explanation'] == closing, 'no words'
  mesh = sharding.make_mesh()
  _, after = io.load(path / 'direct' / 'model', mesh, sharding.TRAIN_RULES)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), jax.device_get(after), _params(path)
  )
  # It went on from RL's model: two steps of two updates at a rate of 1e-3.
  assert 0 < max(jax.tree.leaves(moved)) < 0.01
