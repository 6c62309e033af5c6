"""The command over JSON lines: order, errors of lines, exit codes."""

import json
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A run whose slates bring one column, and a ranker that sorts by it. Chunks are
# small and counted.
CODE = """
import sys, types
import numpy as np
from launch import cli
from launch import rerank as command
from gr2_jax import rerank
from gr2_jax.data import dataset
from gr2_jax.ranker import ranking

class Sorts:
  store = types.SimpleNamespace(
    dataset=dataset.from_sequences(
      '', [dataset.Item(f'i{i}', '') for i in range(9)], {}
    ),
    user_columns=('ctr',),
    sids=np.zeros((9, 2), np.int32),
    workdir='',
  )
  asking = types.SimpleNamespace(longest=4)

  def rank(self, histories, candidates, batch_size, features, scores):
    assert len(candidates) <= 8 * batch_size
    print('ranked', len(candidates), file=sys.stderr, flush=True)
    key = [f[:, 0] if s is None else s for f, s in zip(features, scores)]
    return [
      ranking.Ranking(
        items[np.argsort(-by)], '', '', True, 1, 1, by, None, -np.sort(-by)
      )
      for items, by in zip(candidates, key)
    ]

def load(workdir, *args, **kwargs):
  if workdir.endswith('wrong'):
    raise FileNotFoundError('No run in wrong')
  args = workdir, *args
  print('loaded', args[1:], sorted(kwargs.items()), file=sys.stderr)
  return Sorts()

rerank.load = load
cli.run(command.main)
"""
RECORD = {
  'history': ['i1'],
  'candidates': ['i4', 'i2', 'i3'],
  'features': {'ctr': [0.1, 0.3, 0.2]},
}


def _command(tmp_path, *flags):
  return [sys.executable, '-c', CODE, f'--workdir={tmp_path}', *flags]


def _run(tmp_path, lines, *flags):
  source, output = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
  source.write_text(''.join(line + '\n' for line in lines))
  done = subprocess.run(
    _command(tmp_path, f'--input={source}', f'--output={output}', *flags),
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  return done, [json.loads(line) for line in output.read_text().splitlines()]


def test_columns_and_scores_of_each_line_reach_the_ranker(tmp_path):
  lines = [RECORD, {**RECORD, 'scores': [2, 1, 3], 'note': 'kept'}]
  done, found = _run(tmp_path, map(json.dumps, lines))
  assert done.returncode == 0, done.stderr
  assert [line['order'] for line in found] == [
    ['i2', 'i3', 'i4'], ['i3', 'i4', 'i2'],
  ]  # fmt: skip
  assert found[1]['scores'] == [3, 2, 1]
  assert found[1].items() >= {**RECORD, 'note': 'kept'}.items()
  assert (
    "loaded ('rl',) [('catalogue', None), ('mode', None), ('progress', False)]"
    in done.stderr
  )


def test_the_bar_says_compiling_until_the_first_lists_are_ranked(tmp_path):
  done, _ = _run(tmp_path, [json.dumps(RECORD)])
  before, _, after = done.stderr.partition('ranked 1')
  assert before.rstrip().endswith('compiling]')
  assert '1list' in after and 'compiling' not in after


def test_two_thousand_lists_with_ten_broken_ones(tmp_path):
  rng = random.Random(0)
  broken = dict(
    zip(
      sorted(rng.sample(range(2000), 10)),
      [
        '{',
        '[1]',
        '9' * 5000,
        '\x00',
        json.dumps({**RECORD, 'features': {}}),
        json.dumps({**RECORD, 'candidates': ['i1'], 'note': 5}),
        json.dumps({**RECORD, 'candidates': ['i1', 'i1', 'i2']}),
        json.dumps({**RECORD, 'history': 'i1'}),
        json.dumps({**RECORD, 'scores': [1, 2]}),
        json.dumps({**RECORD, 'scores': [1, 2, None]}),
      ],
      strict=True,
    )
  )
  lines = [
    broken.get(i, json.dumps({**RECORD, 'number': i})) for i in range(2000)
  ]
  done, found = _run(tmp_path, lines, '--batch_size=4')
  assert done.returncode == 3
  assert '10 lines have no answer' in done.stderr
  assert done.stderr.count('ranked') > 2000 // 32
  assert len(found) == 2000
  for i, line in enumerate(found):
    if i in broken:
      assert line['error'].startswith(f'{tmp_path}/in.jsonl:{i + 1}: ')
      assert 'order' not in line
    else:
      assert 'error' not in line
      assert (line['number'], line['order']) == (i, ['i2', 'i3', 'i4'])
  listed = found[next(i for i in broken if broken[i] == '[1]')]
  assert '[1] is no JSON object; write {"history": ' in listed['error']
  # What could be read of a broken line is carried over.
  (note,) = [line for line in found if 'note' in line]
  assert note['note'] == 5 and note['candidates'] == ['i1']
  assert '1 candidates; give 2 or more' in note['error']


def test_strict_stops_at_the_first(tmp_path):
  bad = json.dumps({**RECORD, 'features': {}})
  done, found = _run(
    tmp_path, [json.dumps(RECORD), bad, bad, json.dumps(RECORD)], '--strict'
  )
  assert done.returncode == 3
  assert len(found) == 1 and found[0]['order'] == ['i2', 'i3', 'i4']
  assert "in.jsonl:2: features lacks the columns ['ctr']" in done.stderr
  assert 'in.jsonl:3' not in done.stderr and 'Traceback' not in done.stderr


def test_what_cannot_be_opened_is_told_before_the_model_is_read(tmp_path):
  source = tmp_path / 'in.jsonl'
  source.write_text(json.dumps(RECORD) + '\n')
  for flags, message in (
    (
      (f'--input={source}', f'--output={tmp_path}/no/out'),
      f'--output={tmp_path}/no/out: no such folder; make it',
    ),
    (
      (f'--input={tmp_path}/absent',),
      f'--input={tmp_path}/absent: no such file; give one',
    ),
    ((f'--input={source}', f'--output={source}'), 'are one file'),
  ):
    done = subprocess.run(
      _command(tmp_path, *flags), capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode not in (0, 3)
    assert message in done.stderr and 'loaded' not in done.stderr
  assert source.read_text() == json.dumps(RECORD) + '\n'


def test_an_old_output_is_kept_until_the_model_is_read(tmp_path):
  source, old, new = (tmp_path / name for name in ('in', 'old', 'new'))
  source.write_text(json.dumps(RECORD) + '\n')
  old.write_text('a long answer of yesterday\n' * 99)
  for output in (old, new):
    done = subprocess.run(
      [
        *_command(tmp_path / 'wrong', f'--input={source}'),
        f'--output={output}',
      ],
      capture_output=True,
      text=True,
      cwd=ROOT,
    )
    assert done.returncode == 1 and 'No run in wrong' in done.stderr
  assert old.read_text() == 'a long answer of yesterday\n' * 99
  assert not new.exists()
  done = subprocess.run(
    _command(tmp_path, f'--input={source}', f'--output={old}'), cwd=ROOT
  )
  assert done.returncode == 0
  (answer,) = map(json.loads, old.read_text().splitlines())
  assert answer['order'] == ['i2', 'i3', 'i4']


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path):
  process = subprocess.Popen(
    _command(tmp_path),
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=ROOT,
  )
  with process:
    line = json.dumps(RECORD).encode() + b'\n'
    process.stdin.write(line)
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(line)
    process.stdin.close()
    said = process.stderr.read().decode()
  assert process.returncode == 141
  assert 'Traceback' not in said and 'Broken pipe' not in said


def test_a_line_is_answered_while_the_next_is_awaited(tmp_path):
  process = subprocess.Popen(
    _command(tmp_path, '--model=sft', '--mode=direct', '--catalogue=new'),
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=ROOT,
  )
  with process:
    for _ in range(3):
      process.stdin.write(json.dumps(RECORD).encode() + b'\n')
      process.stdin.flush()
      answer = json.loads(process.stdout.readline())
      assert answer['order'] == ['i2', 'i3', 'i4']
    # The last line has no newline.
    process.stdin.write(b'{')
    process.stdin.close()
    assert json.loads(process.stdout.readline())['error'].startswith(
      '<stdin>:4'
    )
    messages = process.stderr.read().decode()
  assert process.returncode == 3
  assert (
    "loaded ('sft',) [('catalogue', 'new'), ('mode', 'direct'),"
    " ('progress', False)]" in messages
  )
