import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax import files
from gr2_jax.report import compare


def _run(directory, report):
  directory.mkdir()
  files.write_json(directory / 'report.json', report)
  return directory


def test_results_then_settings(tmp_path):
  left = _run(
    tmp_path / 'a',
    {
      'config': {'seed': 0, 'rl': {'alpha': 0.2}},
      'seed': 0,
      'verdict': 'words',
      'warnings': [],
      'rerank': {'n': 10, 'ndcg@5': 0.25, 'delta': [0.1, -0.2, 0.3]},
    },
  )
  right = _run(
    tmp_path / 'b',
    {
      'config': {'seed': 0, 'rl': {'alpha': 0.0, 'steps': 3}},
      'seed': 0,
      'rerank': {'n': 10, 'ndcg@5': 0.5, 'delta': [0.1, -0.2, 0.4]},
    },
  )
  lines = compare.differences(left, right).splitlines()
  lines = [' '.join(line.split()) for line in lines]
  assert lines == [
    f'A = {left}',
    f'B = {right}',
    '',
    'Results',
    'A B B - A',
    'rerank.delta [0.1000, -0.2000, 0.3000] [0.1000, -0.2000, 0.4000]',
    'rerank.ndcg@5 0.2500 0.5000 +0.25',
    '',
    'Config',
    'A B',
    'rl.alpha 0.2000 0.0000',
    'rl.steps - 3',
  ]


_TEXT = st.text('ab.xyz 1', min_size=1, max_size=150).filter(str.strip)
_VALUE = _TEXT | st.floats(-1e9, 1e9) | st.lists(st.floats(0, 1), max_size=20)


@hypothesis.given(st.dictionaries(_TEXT, st.tuples(_VALUE, _VALUE), max_size=5))
def test_lines_are_short_and_show_where_values_part(values):
  left = {'x': {name: pair[0] for name, pair in values.items()}}
  right = {'x': {name: pair[1] for name, pair in values.items()}}
  for numbers in (False, True):
    lines = compare._differences(left, right, numbers)
    assert max(map(len, lines)) <= 100


def test_long_values_are_cut_around_the_first_difference():
  same = 'the same words in front, ' * 8
  left, right = f'{same}then this and more of it', f'{same}then that'
  _, line = compare._differences({'x': left}, {'x': right}, False)
  assert 'then this' in line and 'then that' in line and len(line) <= 100
  name = 'section.' * 20 + 'last_name'
  _, line = compare._differences({name: 0.25}, {name: 0.5}, True)
  assert len(line) <= 100
  assert line.split()[0].endswith('.section.last_name')
  assert line.split()[1:] == ['0.2500', '0.5000', '+0.25']


def test_equal_runs_and_runs_without_results(tmp_path):
  left = _run(tmp_path / 'a', {'config': {'seed': 0}, 'seed': 0})
  assert compare.differences(left, left).count('no difference') == 2
  (tmp_path / 'b').mkdir()
  files.write_json(tmp_path / 'b' / 'config.json', {'seed': 1})
  text = compare.differences(left, tmp_path / 'b')
  assert 'seed' in text and 'not evaluated yet' in text


def test_no_run_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='neither report.json'):
    compare.differences(tmp_path, tmp_path)


def _retrieved(directory, recall, **config):
  directory.mkdir()
  files.write_json(directory / 'config.json', config)
  report = {'config': {'old': 1}, 'retrieval': {'recall@10': recall}}
  files.write_json(directory / 'retrieval.json', report)
  return directory


def test_runs_that_ended_with_their_candidates(tmp_path):
  left = _retrieved(tmp_path / 'a', 0.06, seed=0)
  right = _retrieved(tmp_path / 'b', 0.07, seed=1)
  text = ' '.join(compare.differences(left, right).split())
  assert 'seed 0 1' in text and 'old' not in text
  assert 'retrieval.recall@10 0.0600 0.0700 +0.01' in text
  whole = _run(tmp_path / 'c', {'config': {'seed': 0}, 'rerank': {'n': 3}})
  text = compare.differences(left, whole)
  assert f'not evaluated yet: {left}\n' in text and 'recall' not in text
