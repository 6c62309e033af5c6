"""The traces stage: its lines, its report, and a run that was cut off."""

import itertools

import ml_collections
import numpy as np
import pytest

from gr2_jax import files
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.stages import traces
from gr2_jax.teacher import rationale, sampling
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {i}', (('Drama', 'Comedy')[i % 2],))
  for i in range(20)
]


@pytest.fixture
def world(tmp_path, monkeypatch):
  """The finished stages before this one, in two run directories."""
  rng = np.random.default_rng(0)
  sequences = {f'u{u:02d}': rng.permutation(20)[:8] for u in range(30)}
  made = dataset_lib.from_sequences('made-up', ITEMS, sequences)
  monkeypatch.setattr(dataset_lib, 'load', lambda directory: made)
  lines = itertools.chain(wording.corpus(ITEMS), rationale.corpus())
  vocab = vocab_lib.Vocab.train(lines, 400, levels=2, codes=5)
  sids = np.stack([np.arange(20) // 5, np.arange(20) % 5], axis=1)
  candidates = np.stack([rng.permutation(20)[:4] for _ in range(30)])
  user, position = np.arange(30), np.full(30, 5)
  goal = made.flat[made.offsets[:-1] + 5]
  for row, item in zip(candidates[:20], goal, strict=False):
    row[2] = row[2] if item in row else item
  place = [
    list(row).index(g) if g in row else -1
    for row, g in zip(candidates, goal, strict=True)
  ]
  for name in ('one', 'two'):
    root = tmp_path / name
    for stage in ('data', 'sid', 'midtrain', 'candidates'):
      (root / stage).mkdir(parents=True)
      files.write_json(root / stage / 'DONE', {'fingerprint': stage})
    files.atomic_savez(root / 'sid' / 'sids.npz', sids=sids)
    vocab.save(root / 'midtrain' / 'vocab')
    files.atomic_savez(
      root / 'candidates' / 'train.npz',
      user=user,
      position=position,
      candidates=candidates,
      scores=np.zeros((30, 4), np.float32),
      target=np.array(place),
    )
  config = ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'split': {}},
      'text': {'prompt': {'max_candidates': 4}},
      'traces': {'attempts': 3, 'explanation_tokens': 60, 'chunk': 6},
    }
  )
  return tmp_path, config, np.array(place), goal


def test_lines_report_and_resume(world, monkeypatch):
  path, config, place, goal = world
  summary = traces.run(config, path / 'one')
  lines = list(files.read_jsonl(path / 'one' / 'traces' / 'traces.jsonl'))
  assert summary['teacher'] == 'rules' and summary['mode'] == 'rejection'
  assert summary['requested'] == (place >= 0).sum()
  assert summary['accepted'] == len(lines) == sum(summary['by_attempt'])
  assert 0 < len(lines)
  for line in lines:
    assert set(line) == {
      'user',
      'position',
      'candidates',
      'target',
      'ranking',
      'explanation',
      'mode',
      'attempt',
      'tokens',
    }
    assert line['target'] == goal[line['user']] == line['ranking'][0]
    assert sorted(line['ranking']) == sorted(line['candidates'])
  assert summary['explanation_tokens']['max'] <= 60
  assert not (path / 'one' / 'traces' / 'parts').exists()

  whole, left = sampling.collect, 2

  def crash(*args):
    nonlocal left
    left -= 1
    if left < 0:
      raise KeyboardInterrupt
    return whole(*args)

  monkeypatch.setattr(sampling, 'collect', crash)
  with pytest.raises(KeyboardInterrupt):
    traces.run(config, path / 'two')
  assert len(list((path / 'two' / 'traces' / 'parts').iterdir())) == 2
  left = 100
  again = traces.run(config, path / 'two')
  assert left < 100, 'the rest was asked'
  text = [
    (path / name / 'traces' / 'traces.jsonl').read_text()
    for name in ('one', 'two')
  ]
  assert text[0] == text[1]
  again.pop('seconds')
  summary.pop('seconds')
  assert again == summary


def test_targeted_mode_keeps_every_list(world):
  path, config, place, _ = world
  config.traces.mode = 'targeted'
  summary = traces.run(config, path / 'one')
  assert summary['accepted'] == summary['requested'] == (place >= 0).sum()
  assert summary['by_attempt'] == [summary['accepted'], 0, 0]


def test_practice_is_what_lacks_its_target_and_stands_apart(world):
  path, config, place, _ = world
  without = traces.run(config, path / 'one')
  config.traces.practice = 1000
  summary = traces.run(config, path / 'two')
  assert (without['practice'], summary['practice']) == (0, (place < 0).sum())
  assert summary['accepted'] == without['accepted']
  read = lambda run, name: list(
    files.read_jsonl(path / run / 'traces' / f'{name}.jsonl')
  )
  assert read('one', 'traces') == read('two', 'traces')
  assert read('one', 'practice') == []
  practice = read('two', 'practice')
  assert {line['user'] for line in practice} == set(np.flatnonzero(place < 0))
  for line in practice:
    assert (line['target'], line['mode']) == (None, 'practice')
    assert sorted(line['ranking']) == sorted(line['candidates'])


def test_no_hit_is_an_error_that_says_what_to_do(world):
  path, config, _, _ = world
  stored = path / 'one' / 'candidates' / 'train.npz'
  arrays = dict(np.load(stored))
  arrays['target'][:] = -1
  files.atomic_savez(stored, **arrays)
  with pytest.raises(ValueError, match='candidates.k'):
    traces.run(config, path / 'one')
