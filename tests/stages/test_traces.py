"""The traces stage: its lines, its report, and a run that was cut off."""

import itertools

import ml_collections
import numpy as np
import pytest

from gr2_jax import files
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import stored
from gr2_jax.stages import teachers, traces
from gr2_jax.teacher import base, rationale
from gr2_jax.text import semantic_ids, wording
from gr2_jax.text import vocab as vocab_lib
from tests.teacher import scripted

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {i}', (('Drama', 'Comedy')[i % 2],))
  for i in range(20)
]

SIDS = np.stack([np.arange(20) // 5, np.arange(20) % 5], axis=1)


@pytest.fixture
def world(tmp_path, monkeypatch):
  """The finished stages before this one, in two run directories."""
  rng = np.random.default_rng(0)
  sequences = {f'u{u:02d}': rng.permutation(20)[:8] for u in range(30)}
  made = dataset_lib.from_sequences('made-up', ITEMS, sequences)
  monkeypatch.setattr(stored, 'load', lambda directory: made)
  lines = itertools.chain(wording.corpus(ITEMS), rationale.corpus())
  vocab = vocab_lib.Vocab.train(lines, 400, levels=2, codes=5)
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
    files.atomic_savez(root / 'sid' / 'sids.npz', sids=SIDS)
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
      # SFT, and so the teacher, reads every list.
      'candidates': {'fold_use': 'head'},
      'text': {'prompt': {'max_candidates': 4}},
      'traces': {
        'sft_share': 1.0,
        'attempts': 3,
        'explanation_tokens': 60,
      },
    }
  )
  return tmp_path, config, np.array(place), goal


def read(path):
  return list(files.read_jsonl(path / 'traces' / 'traces.jsonl'))


def test_lines_and_report(world):
  path, config, place, goal = world
  summary = traces.run(config, path / 'one')
  lines = read(path / 'one')
  assert summary['teacher'] == 'rules' and summary['mode'] == 'rejection'
  assert summary['requested'] == (place >= 0).sum()
  assert summary['accepted'] == len(lines) == sum(summary['by_attempt'])
  turned_down = sum(summary['rejected'].values())
  assert sum(summary['asked']) == len(lines) + turned_down
  assert turned_down == summary['rejected']['wrong_top'] > 0
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
  counts = np.bincount(place[place >= 0], minlength=4).tolist()
  assert summary['by_position']['lists'] == counts
  assert sum(summary['by_position']['traces']) == len(lines)
  quality = summary['quality']
  assert quality['citing'] == quality['last_is_top'] == 1
  # The rules cite one of the history, the answer then the first candidate.
  assert quality['cited_history'] == quality['cited_candidates'] == 0.5
  assert quality['cited_exist'] == 1 and 0 < quality['distinct_2'] < 1
  tokens = summary['tokens']
  assert tokens['prompt'] == tokens['completion'] == 0, 'rules are no model'


def test_the_explanations_cite_what_the_student_is_shown(world):
  path, config, *_ = world
  config.text.prompt.history_items = 2
  traces.run(config, path / 'one')
  config.text.prompt.history_items = 1
  config.traces.prompt = {'history_items': 2}
  traces.run(config, path / 'two')
  assert read(path / 'one') == read(path / 'two')
  find = semantic_ids.Citations(np.load(path / 'one/sid/sids.npz')['sids']).find
  sequences = stored.load(None)
  for line in read(path / 'one'):
    history = sequences.sequence(line['user'])[: line['position']][-2:]
    assert find(line['explanation'])[0] in history


def _answer(request, attempt, seed):
  """An answer by chance, most often sound."""
  rng = np.random.default_rng([seed, attempt])
  ranking = rng.permutation(request.candidates).tolist()
  words = ('a', 'one', 'the')[rng.integers(3)]
  cited = SIDS[[request.history[-1], ranking[0]]].tolist()
  text = f'{words} '.join(
    f'<|sid_begin|><s_a_{a}><s_b_{b}><|sid_end|>' for a, b in cited
  )
  if rng.integers(5) == 0:
    return base.Answer(
      [], '', 'not_json', text='text', prompt_tokens=20, completion_tokens=7
    )
  return base.Answer(
    ranking, text, None, text=text, prompt_tokens=20, completion_tokens=7
  )


@pytest.fixture
def teach(world, monkeypatch):
  """`teach(*arguments)` makes the next teacher, a scripted one."""
  world[1].traces.teacher = 'scripted'

  def make(*arguments):
    teacher = scripted.Scripted(_answer, *arguments)
    make = lambda config, cfg, store, context: teacher
    monkeypatch.setitem(teachers.MAKERS, 'scripted', make)
    return teacher

  return make


def content(path):
  """All bytes that a finished run must have, whatever happened to it."""
  summary = files.read_json(path / 'traces' / 'summary.json')
  summary.pop('seconds')
  return (path / 'traces' / 'traces.jsonl').read_bytes(), summary


@pytest.mark.parametrize('seed', range(3))
def test_killed_anywhere_it_ends_in_the_same_bytes(world, teach, seed):
  path, config, place, _ = world
  config.traces.near_duplicate = 1.0
  whole = teach()
  summary = traces.run(config, path / 'one')
  assert summary['near_duplicates'] > 0
  # Each answer read 20 tokens and wrote 7.
  assert summary['tokens']['prompt'] == 20 * sum(summary['asked'])
  assert summary['tokens']['completion'] == 7 * sum(summary['asked'])

  rng = np.random.default_rng(seed)
  answered, kills = [], 0
  while True:
    teacher = teach(rng, int(rng.integers(4, 20)))
    try:
      traces.run(config, path / 'two')
      break
    except scripted.Killed:
      kills += 1
      # What was being written, and comes again.
      for kept in (path / 'two' / 'traces' / 'answers').iterdir():
        with kept.open('a') as stream:
          stream.write('{"user": 1, "posi')
    finally:
      answered += teacher.answered
  assert kills > 1
  assert sorted(answered) == sorted(whole.answered), 'none was asked twice'
  assert content(path / 'one') == content(path / 'two')


def test_what_was_paid_for_is_used_again(world, teach):
  path, config, place, _ = world
  config.traces.lists = 7
  first = teach()
  assert traces.run(config, path / 'one')['requested'] == 7
  few = {(line['user'], line['attempt']) for line in read(path / 'one')}
  # More lists: those of before are among them, and only others are asked.
  config.traces.lists = 12
  second = teach()
  assert traces.run(config, path / 'one', redo=True)['requested'] == 12
  assert few <= {(line['user'], line['attempt']) for line in read(path / 'one')}
  assert {lists for _, lists, _ in first.asked}.isdisjoint(
    lists for _, lists, _ in second.asked
  )
  # A stricter acceptance asks again where it turns down, no more.
  config.traces.explanation_tokens = 11
  third = teach()
  traces.run(config, path / 'one', redo=True)
  assert not set(third.asked) & {*first.asked, *second.asked}
  # Another prompt is asked everything, and its answers stand apart.
  config.traces.explanation_tokens = 60
  other = teach()
  other.identity = {'prompt': 'v2'}
  config.traces.prompt = {'version': 'v2'}
  assert traces.run(config, path / 'one', redo=True)['requested'] == 12
  assert {*first.asked, *second.asked} <= {*other.asked}
  kept = list((path / 'one' / 'traces' / 'answers').iterdir())
  assert len(kept) == 2, 'one of each prompt'
  # Back to the first one: all is there.
  config.traces.prompt = {}
  last = teach()
  traces.run(config, path / 'one', redo=True)
  assert last.asked == []


def test_other_candidates_are_asked_about(world, teach):
  path, config, place, _ = world
  teach()
  traces.run(config, path / 'one')
  train = path / 'one' / 'candidates' / 'train.npz'
  arrays = dict(np.load(train))
  row = int(np.flatnonzero(place >= 0)[0])
  arrays['candidates'][row] = arrays['candidates'][row][::-1]
  arrays['target'][row] = 3 - arrays['target'][row]
  files.atomic_savez(train, **arrays)
  files.write_json(
    path / 'one' / 'candidates' / 'DONE', {'fingerprint': 'another'}
  )
  again = teach()
  traces.run(config, path / 'one', redo=True)
  assert {lists for _, lists, _ in again.asked} == {
    tuple(arrays['candidates'][row].tolist())
  }


def test_targeted_mode_keeps_every_list(world):
  path, config, place, _ = world
  config.traces.mode = 'targeted'
  summary = traces.run(config, path / 'one')
  assert summary['accepted'] == summary['requested'] == (place >= 0).sum()
  assert summary['by_attempt'] == [summary['accepted'], 0, 0]


def test_the_lists_of_the_folds_are_explained_where_sft_reads_them(world):
  path, config, place, _ = world
  train = path / 'one' / 'candidates' / 'train.npz'
  arrays = dict(np.load(train))
  sequences = stored.load(None)
  # One position earlier, and with the target in the last place of every list
  # but that of user 7.
  folds = arrays | {'position': arrays['position'] - 1}
  folds['candidates'] = arrays['candidates'].copy()
  for user, row in enumerate(folds['candidates']):
    goal = sequences.sequence(user)[4]
    others = np.setdiff1d(row, goal)
    row[:3], row[3] = others[:3], goal
  folds['target'] = np.where(np.arange(30) == 7, -1, 3)
  files.atomic_savez(train.with_name('folds.npz'), **folds)
  config.traces.mode = 'targeted'
  traces.run(config, path / 'one')
  assert {line['position'] for line in read(path / 'one')} == {5}
  config.candidates.fold_use = 'sft'
  files.write_json(train.with_name('DONE'), {'fingerprint': 'with folds'})
  summary = traces.run(config, path / 'one', redo=True)
  assert summary['requested'] == 29 + (place >= 0).sum()
  lines = [line for line in read(path / 'one') if line['position'] == 4]
  assert [line['user'] for line in lines] == [u for u in range(30) if u != 7]
  for line in lines:
    assert line['candidates'] == folds['candidates'][line['user']].tolist()
    assert line['target'] == sequences.sequence(line['user'])[4]
  # So many of all of them.
  config.traces.lists = 5
  assert traces.run(config, path / 'one', redo=True)['requested'] == 5


def test_no_hit_is_an_error_that_says_what_to_do(world):
  path, config, _, _ = world
  train = path / 'one' / 'candidates' / 'train.npz'
  arrays = dict(np.load(train))
  arrays['target'][:] = -1
  files.atomic_savez(train, **arrays)
  with pytest.raises(ValueError, match='candidates.k'):
    traces.run(config, path / 'one')
