"""Grading by a model behind an address."""

import json

import numpy as np
import pytest

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.teacher import base, judge, messages
from gr2_jax.teacher import config as teacher_config
from tests.teacher import fake_server

ITEMS = [dataset_lib.Item(f'i{i}', f'Film {i}', ('Drama',)) for i in range(9)]
SIDS = np.stack([np.arange(9) // 3, np.arange(9) % 3], axis=1)
WRITER = messages.Writer(
  ITEMS,
  SIDS,
  teacher_config.MessageConfig(history_items=8, tokens_a_word=1.5),
  explanation_tokens=40,
)
GRADED = judge.Graded(
  base.Request(np.array([0, 1]), np.array([5, 6]), hint=6), [6, 5], 'Say "5".'
)


def _judge(url, **changes):
  cfg = teacher_config.EndpointConfig(url=url, backoff=0.001, **changes)
  return judge.Judge(WRITER, cfg, 'm')


def _score(messages, seed):
  """Answers with the aspect's number."""
  asked = messages[-1]['content'].splitlines()
  names = ('Grounding', 'Consistency', 'Flow', 'Semantic IDs')
  (found,) = (
    i for i, name in enumerate(names)
    for line in asked if line.startswith(f'{name}: ')
  )  # fmt: skip
  return json.dumps({'score': found + 1})


def test_every_aspect_is_asked_on_its_own():
  asked = [(GRADED, aspect) for aspect in judge.ASPECTS]
  with fake_server.FakeServer(_score) as server:
    found = {i: (x, text) for i, x, text in _judge(server.url).grade(asked)}
  assert found == {i: (i + 1, f'{{"score": {i + 1}}}') for i in range(4)}
  request = server.requests[0]
  assert request['temperature'] == 0
  shown = request['messages'][-1]['content']
  # All that the writer saw, but not what it was told.
  assert 'Film 5' in shown and 'Film 1' in shown
  assert 'user chose next:' not in shown
  answer = json.loads(shown.split('What it answered:\n\n')[1].split('\n')[0])
  assert answer['explanation'] == 'Say "5".'
  assert answer['recommendations'] == [WRITER.sid(6), WRITER.sid(5)]


@pytest.mark.parametrize(
  ('text', 'score'),
  [
    ('{"score": 4}', 4),
    ('```json\n{"score": 1}\n```', 1),
    ('<think>Hm, 2?</think>{"score": 5}', 5),
    ('{"score": 0}', None),
    ('{"score": 6}', None),
    ('{"score": true}', None),
    ('{"score": 4.5}', None),
    ('{"score": "4"}', None),
    ('[4]', None),
    ('4', None),
    ('', None),
    ('[' * 100_000, None),
  ],
)
def test_scores_are_read_exactly(text, score):
  assert judge.read(text) == score


def test_a_summary_counts_what_it_could_not_read():
  scores = [('flow', 5), ('flow', None), ('flow', 2), ('sids', None)]
  found = judge.summary(scores)
  assert found['flow'] == {'n': 2, 'mean': 3.5, 'unreadable': 1}
  assert found['sids'] == {'n': 0, 'mean': None, 'unreadable': 1}
  assert found['grounding'] == {'n': 0, 'mean': None, 'unreadable': 0}


def test_a_version_that_does_not_exist_is_named():
  cfg = teacher_config.EndpointConfig(url='http://127.0.0.1:9/v1')
  with pytest.raises(ValueError, match=r"no version 'v9'.*\['v1'\]"):
    judge.Judge(WRITER, cfg, 'm', 'v9')


def test_the_identity_names_model_and_rubrics():
  identity = _judge('http://127.0.0.1:9/v1').identity
  assert identity['judge'] == 'm' and identity['version'] == 'v1'
  assert len(identity['digest']) == 16
