"""Grading a run's traces: kept as it comes, asked once."""

import collections

import ml_collections
import pytest

from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.ranker import judging
from gr2_jax.teacher import asker, client, judge
from gr2_jax.teacher import config as teacher_config
from tests.integration import small
from tests.teacher import fake_server


@pytest.fixture
def graded(workdir):
  """A run with six traces; `graded(url, sample, **endpoint)` grades."""
  config = ml_collections.ConfigDict(
    {
      'text': {'prompt': {'max_candidates': 3}},
      # Else it is measured in the vocabulary, which is not here.
      'traces': {'explanation_tokens': 80, 'prompt': {'tokens_a_word': 2.0}},
    }
  )
  config_lib.save(config, workdir / 'config.json')
  (workdir / 'traces').mkdir()
  files.write_jsonl(
    workdir / 'traces' / 'traces.jsonl',
    (
      {
        'user': user,
        'position': 5,
        'candidates': [1, 2, 3],
        'ranking': [2, 1, 3],
        'explanation': f'Number {user}.',
      }
      for user in range(9)
    ),
  )
  small.finish(workdir, 'data')
  small.finish(workdir, 'sid', ['data'])
  small.finish(workdir, 'traces', ['data', 'sid'], **config)
  assert small.dataset().num_items == 20

  def grade(url, sample, insist=False, **settings):
    cfg = teacher_config.EndpointConfig(url=url, backoff=0.001, **settings)
    make = lambda writer: judge.Judge(writer, cfg, 'm')
    return judging.run(workdir, make, sample, insist=insist)

  return grade


def _say_four(messages, seed):
  return '{"score": 4}'


def test_scores_are_asked_once(graded, workdir):
  with fake_server.FakeServer(_say_four) as server:
    with pytest.raises(client.BudgetError):
      graded(server.url, 4, max_requests=7)
    kept = list(files.read_jsonl(workdir / 'judge' / 'scores.jsonl'))
    assert len(kept) == len(server.requests) == 7
    found = graded(server.url, 4)
    assert len(server.requests) == 16
    assert graded(server.url, 4) == found
    assert len(server.requests) == 16
    # More traces: those of fewer are among them.
    assert graded(server.url, 99)['traces'] == 9
    assert len(server.requests) == 36
  asked = collections.Counter(
    request['messages'][-1]['content'] for request in server.requests
  )
  assert set(asked.values()) == {1}
  assert found['traces'] == 4 and found['judge'] == 'm'
  for aspect in judge.ASPECTS:
    assert found[aspect] == {'n': 4, 'mean': 4.0, 'unreadable': 0}
  summary = files.read_json(workdir / 'judge' / 'summary.json')
  assert summary['traces'] == 9


def test_answers_without_a_score_end_it_early(graded, workdir):
  with fake_server.FakeServer(lambda *_: 'I give it a four.') as server:
    with pytest.raises(
      asker.FirstAnswersError, match="One begins: 'I give it a four"
    ):
      graded(server.url, 9)
    assert len(server.requests) == 32
    kept = list(files.read_jsonl(workdir / 'judge' / 'scores.jsonl'))
    assert [line['text'] for line in kept] == ['I give it a four.'] * 32
    assert graded(server.url, 9, insist=True)['flow']['unreadable'] == 9
  assert len(server.requests) == 36


def test_a_run_without_traces_is_named(graded, workdir):
  (workdir / 'traces' / 'DONE').unlink()
  with pytest.raises(FileNotFoundError, match='is not finished'):
    graded('http://127.0.0.1:9/v1', 4)


def test_nothing_to_grade_is_an_error(graded):
  with pytest.raises(ValueError, match='--sample=0 of 9 traces'):
    graded('http://127.0.0.1:9/v1', 0)
