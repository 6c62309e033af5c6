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


def test_a_run_that_ended_with_its_candidates(tmp_path):
  (tmp_path / 'a').mkdir()
  report = {'config': {'seed': 0}, 'retrieval': {'recall@10': 0.06}}
  files.write_json(tmp_path / 'a' / 'retrieval.json', report)
  config, results = compare.read(tmp_path / 'a')
  assert config == {'seed': 0}
  assert results == {'retrieval': {'recall@10': 0.06}}
