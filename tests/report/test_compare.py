import pytest

from gr2_jax import files
from gr2_jax.report import compare


def _run(directory, report):
  directory.mkdir()
  files.write_json(directory / 'report.json', report)
  return directory


def test_settings_then_results(tmp_path):
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
    'Config',
    'A B',
    'rl.alpha 0.2000 0.0000',
    'rl.steps - 3',
    '',
    'Results',
    'A B B - A',
    'rerank.delta [0.1000, -0.2000, 0.3000] [0.1000, -0.2000, 0.4000]',
    'rerank.ndcg@5 0.2500 0.5000 +0.25',
  ]


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
  assert f'not evaluated yet: {left} (' in text and 'recall' not in text
