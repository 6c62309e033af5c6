"""The command over JSON lines: what reaches the ranker, and bad lines."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A run whose slates bring one column, and a ranker that sorts by it.
CODE = """
import sys, types
import numpy as np
from absl import app
from launch import rerank as command
from gr2_jax import rerank
from gr2_jax.stages import ranking

class Sorts:
  items = [types.SimpleNamespace(item_id=f'i{i}') for i in range(9)]
  store = types.SimpleNamespace(
    dataset=types.SimpleNamespace(items=items),
    user_columns=('ctr',),
    workdir='',
  )

  def rank(self, histories, candidates, batch_size, features, scores):
    key = [f[:, 0] if s is None else s for f, s in zip(features, scores)]
    return [
      ranking.Ranking(items[np.argsort(-by)], '', '', True, 1, 1)
      for items, by in zip(candidates, key)
    ]

rerank.load = lambda *args, **kwargs: Sorts()
app.run(command.main)
"""


def _run(tmp_path, *records):
  source, output = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
  source.write_text(''.join(json.dumps(record) + '\n' for record in records))
  done = subprocess.run(
    [
      *(sys.executable, '-c', CODE, f'--workdir={tmp_path}'),
      *('--input=~/in.jsonl', '--output=~/out.jsonl'),
    ],
    env={**os.environ, 'HOME': str(tmp_path)},
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  return done, output


def test_columns_and_scores_of_each_line_reach_the_ranker(tmp_path):
  record = {
    'history': ['i1'],
    'candidates': ['i4', 'i2', 'i3'],
    'features': {'ctr': [0.1, 0.3, 0.2]},
  }
  done, output = _run(tmp_path, record, {**record, 'scores': [2, 1, 3]})
  assert done.returncode == 0, done.stderr
  lines = [json.loads(line) for line in output.read_text().splitlines()]
  assert [line['order'] for line in lines] == [
    ['i2', 'i3', 'i4'], ['i3', 'i4', 'i2'],
  ]  # fmt: skip
  assert lines[1].items() >= {**record, 'scores': [2, 1, 3]}.items()


def test_a_line_without_the_columns_of_the_run_is_named(tmp_path):
  record = {'history': [], 'candidates': ['i4', 'i2']}
  good = {**record, 'features': {'ctr': [1, 2]}}
  done, output = _run(tmp_path, good, record)
  assert done.returncode and not output.exists()
  assert "in.jsonl:2: features lacks the columns ['ctr']" in done.stderr
