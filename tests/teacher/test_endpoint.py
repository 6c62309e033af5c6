"""The endpoint teacher beside a server that answers deterministically."""

import json
import logging
import sys
import threading

import pytest

from gr2_jax.teacher import client, protocol
from tests.teacher import fake_server, questions


@pytest.fixture
def server():
  with fake_server.FakeServer() as running:
    yield running


def test_requests_hold_what_the_protocol_asks_for(server):
  teacher = questions.teacher(server.url, 'org/model', structured='schema')
  found = questions.answers(teacher, 3, attempt=2)
  request = sorted(server.requests, key=lambda r: r['seed'])[1]
  lists = questions.requests(3)
  assert request == {
    'model': 'org/model',
    'messages': questions.FakeWriter().messages(lists[1]),
    'temperature': 1.0,
    'top_p': 0.9,
    'seed': 101,
    'max_tokens': 64,
    'response_format': {
      'type': 'json_schema',
      'json_schema': {
        'name': 'answer',
        'strict': True,
        'schema': questions.FakeWriter().schema(lists[1]),
      },
    },
  }
  assert {h['authorization'] for h in server.headers} == {'Bearer none'}
  assert sorted(found) == [0, 1, 2]
  for index, answer in found.items():
    assert sorted(answer.ranking) == lists[index].candidates.tolist()
    assert answer.explanation == f'Seed {100 + index} – so.'
    assert answer.problem is None
    assert json.loads(answer.text)['ranking'] == answer.ranking
    assert (answer.prompt_tokens, answer.completion_tokens) == (13, 7)


def test_a_teacher_has_a_name_and_an_identity(server):
  teacher = questions.teacher(server.url, 'org/model')
  assert teacher.name == 'org/model'
  assert json.loads(json.dumps(teacher.identity)) == {
    'teacher': 'endpoint',
    'model': 'org/model',
    'prompt': {'version': 'v0', 'digest': 'abc'},
    'sampling': {'top_p': 0.9, 'max_tokens': 64},
  }


def test_answers_follow_from_prompt_and_seed():
  with fake_server.FakeServer() as one, fake_server.FakeServer() as other:
    first = questions.answers(questions.teacher(one.url), 20)
    second = questions.answers(questions.teacher(other.url, concurrency=1), 20)
  assert questions.rankings(first) == questions.rankings(second)


def test_nothing_is_asked_for_no_lists(server):
  assert questions.answers(questions.teacher(server.url), 0) == {}
  assert server.requests == []


def test_so_many_requests_run_at_a_time():
  with fake_server.FakeServer(seconds=0.02) as server:
    questions.answers(questions.teacher(server.url, concurrency=3), 12)
  assert server.most == 3


@pytest.mark.parametrize(
  ('choice', 'problem'),
  [
    ({'finish_reason': 'length', 'message': {'content': '{"ra'}}, 'cut_off'),
    ({'finish_reason': 'length', 'message': {'content': None}}, 'cut_off'),
    ({'finish_reason': 'content_filter', 'message': {}}, 'refused'),
    ({'message': {'content': None, 'refusal': 'I will not.'}}, 'refused'),
    ({'message': {'content': ' \n'}}, 'refused'),
    ({'message': {'content': 'Certainly!'}}, 'not_json'),
    ({'finish_reason': 'max_tokens', 'message': {'content': '{'}}, 'cut_off'),
  ],
)
def test_answers_without_a_ranking_have_a_problem(choice, problem):
  with fake_server.FakeServer(lambda messages, seed: choice) as server:
    found = questions.answers(questions.teacher(server.url), 1)[0]
  assert (found.problem, found.ranking) == (problem, [])
  assert found.text == (choice['message'].get('content') or '')
  assert found.completion_tokens == 7


ANSWER = {'ranking': [3, 1], 'explanation': 'So.'}


@pytest.mark.parametrize(
  'message',
  [
    {'content': None, 'reasoning_content': json.dumps(ANSWER)},
    {'content': ' ', 'reasoning': json.dumps(ANSWER)},
    {'content': json.dumps(ANSWER), 'reasoning_content': 'Hm.'},
    {'content': [{'type': 'text', 'text': json.dumps(ANSWER)}]},
    {
      'content': [
        {'type': 'thinking', 'thinking': [{'type': 'text', 'text': 'Hm.'}]},
        {'type': 'text', 'text': json.dumps(ANSWER)},
      ]
    },
  ],
)
def test_an_answer_is_read_wherever_the_server_puts_it(message):
  write = lambda messages, seed: {'message': message}
  with fake_server.FakeServer(write) as server:
    found = questions.answers(questions.teacher(server.url), 1)[0]
  assert (found.problem, found.ranking) == (None, [3, 1])
  assert found.text == json.dumps(ANSWER)


def test_a_thought_alone_is_called_so():
  thought = {'content': '', 'reasoning_content': 'Okay, the user'}
  write = lambda messages, seed: {'message': thought}
  with fake_server.FakeServer(write) as server:
    found = questions.answers(questions.teacher(server.url), 1)[0]
  assert (found.problem, found.ranking) == ('only_thought', [])
  assert found.text == 'Okay, the user'


def _refuse(status, message, field):
  """Refuses requests that have a field."""
  body = {'error': {'message': message}}
  return lambda request, headers: (status, body) if field in request else None


@pytest.mark.parametrize('status', [400, 422])
def test_without_schemas_the_run_goes_on_loudly(status, caplog):
  refuse = _refuse(status, 'no such field', 'response_format')
  with fake_server.FakeServer(refuse=refuse) as server:
    teacher = questions.teacher(server.url, concurrency=2)
    assert len(questions.answers(teacher, 6)) == 6
    questions.answers(teacher, 6)
  with_schema = ['response_format' in r for r in server.requests]
  # Those that were under way before the first answer came.
  assert 1 <= sum(with_schema) <= 2
  assert caplog.text.count('refuses JSON by schema') == 1


def test_a_schema_can_be_insisted_on():
  refuse = _refuse(400, 'no such field', 'response_format')
  with fake_server.FakeServer(refuse=refuse) as server:
    with pytest.raises(protocol.EndpointError, match='no such field'):
      questions.answers(questions.teacher(server.url, structured='schema'))


def test_no_schema_need_be_sent(server):
  questions.answers(questions.teacher(server.url, structured='none'))
  assert not any('response_format' in r for r in server.requests)


def test_a_bad_request_is_not_taken_for_missing_schemas(caplog):
  refuse = _refuse(400, 'This is over the context length', 'messages')
  with fake_server.FakeServer(refuse=refuse) as server:
    with pytest.raises(
      protocol.EndpointError, match='traces.prompt.history_it'
    ):
      questions.answers(questions.teacher(server.url))
  assert 'refuses JSON' not in caplog.text


def test_the_limit_may_have_its_new_name():
  message = "'max_tokens' is not supported, use 'max_completion_tokens'."
  refuse = _refuse(400, message, 'max_tokens')
  with fake_server.FakeServer(refuse=refuse) as server:
    teacher = questions.teacher(server.url, concurrency=1)
    assert len(questions.answers(teacher, 3)) == 3
  assert [r.get('max_completion_tokens') for r in server.requests] == [
    *(None, 64, 64, 64)
  ]
  assert all('response_format' in r for r in server.requests)


@pytest.mark.parametrize(
  ('status', 'message', 'remedy'),
  [
    (401, 'Incorrect API key', 'into the environment variable GR2_TEACHER_API'),
    (403, 'No', 'into the environment variable GR2_TEACHER_API_KEY'),
    (404, 'The model `m` does not exist', r'Correct traces\.model'),
    (400, "Server is pinned to model 'x'", r'Correct traces\.model'),
    (400, "Server is pinned to 'x'; requested 'm'.", r'Correct traces\.model'),
    (413, 'Prompt too long', r'lower traces\.prompt\.history_items'),
    (422, 'top_p must be 1', 'Correct what it names'),
  ],
)
def test_what_is_refused_stops_the_run(status, message, remedy):
  refuse = _refuse(status, message, 'messages')
  with fake_server.FakeServer(refuse=refuse) as server:
    teacher = questions.teacher(server.url, structured='none', concurrency=1)
    with pytest.raises(protocol.EndpointError, match=remedy) as raised:
      questions.answers(teacher)
  assert message in str(raised.value) and server.url in str(raised.value)
  assert len(server.requests) == 1


def test_a_filtered_prompt_is_an_answer():
  body = {'error': {'message': 'no', 'code': 'content_filter'}}
  refuse = lambda request, headers: (
    (400, body) if request['seed'] == 101 else None
  )
  with fake_server.FakeServer(refuse=refuse) as server:
    teacher = questions.teacher(server.url, structured='none')
    found = questions.answers(teacher, 4)
  problems = [found[i].problem for i in range(4)]
  assert problems == [None, 'refused', None, None]


def test_requests_under_way_are_kept_when_the_run_stops():
  """The third list is refused while the others take their time."""
  refuse = lambda request, headers: (
    (404, {'error': 'gone'}) if request['seed'] == 102 else None
  )
  found = {}
  with fake_server.FakeServer(refuse=refuse, seconds=0.1) as server:
    teacher = questions.teacher(server.url, concurrency=4)
    with pytest.raises(protocol.EndpointError, match='404'):
      questions.answers(teacher, 50, into=found)
  assert set(found) == {0, 1, 3}


@pytest.mark.parametrize(
  ('limits', 'spent', 'number'),
  [
    (dict(max_requests=5), (0, 0), 5),
    (dict(max_requests=5), (3, 1000), 2),
    (dict(max_tokens=5 * 20), (0, 0), 5),
    (dict(max_tokens=5 * 20), (0, 2 * 20), 3),
    (dict(max_tokens=5 * 20 - 1, max_requests=9), (1, 0), 5),
    (dict(max_requests=5), (5, 0), 0),
  ],
)
def test_a_budget_is_kept(limits, spent, number, server):
  teacher = questions.teacher(server.url, spent=spent, concurrency=1, **limits)
  found = {}
  with pytest.raises(client.BudgetError, match='budget is spent') as raised:
    questions.answers(teacher, 8, into=found)
  assert len(found) == len(server.requests) == number
  total = spent[0] + number, spent[1] + 20 * number
  assert f'{total[0]} requests' in str(raised.value)
  assert f'{total[1]} tokens' in str(raised.value)
  with pytest.raises(client.BudgetError):
    questions.answers(teacher, 8)
  assert len(server.requests) == number


def test_what_a_budget_started_is_awaited():
  with fake_server.FakeServer(seconds=0.05) as server:
    teacher = questions.teacher(server.url, max_requests=6, concurrency=4)
    found = {}
    with pytest.raises(client.BudgetError):
      questions.answers(teacher, 20, into=found)
  assert len(found) == len(server.requests) == 6


def test_a_budget_that_suffices_is_no_error(server):
  teacher = questions.teacher(server.url, max_requests=6)
  assert len(questions.answers(teacher, 6)) == 6


def test_tokens_that_nobody_counts_are_said(caplog):
  with fake_server.FakeServer(usage=False) as server:
    found = questions.answers(questions.teacher(server.url))
    assert found[0].completion_tokens == 0
    assert caplog.text.count('does not say how many tokens') == 1
    found = {}
    with pytest.raises(protocol.EndpointError, match=r'endpoint\.max_tokens'):
      questions.answers(
        questions.teacher(server.url, max_tokens=100), into=found
      )
  assert found


def _threads():
  return {t.name for t in threading.enumerate() if 'portal' in t.name}


@pytest.mark.parametrize('end', ['close', 'interrupt', 'forget'])
def test_an_iterator_that_is_left_leaves_nothing(end):
  with fake_server.FakeServer(seconds=0.05) as server:
    teacher = questions.teacher(server.url, concurrency=2)
    seeds = list(range(100))
    groups = teacher.answer(questions.requests(100), 0, seeds)
    next(groups)
    assert _threads()
    if end == 'close':
      groups.close()
    elif end == 'interrupt':
      with pytest.raises(KeyboardInterrupt):
        groups.throw(KeyboardInterrupt)
    del groups
    assert not _threads()
    asked = len(server.requests)
    # The same teacher can be asked again.
    assert len(questions.answers(teacher, 2)) == 2
  # By now the server is done with all that came.
  again = [r for r in server.requests if r['seed'] in (100, 101)]
  assert len(again) == 2
  # What was on the wire when the iterator was left may be read late: no more
  # than is asked at a time.
  assert asked <= len(server.requests) - len(again) <= asked + 2


def test_an_error_of_the_prompts_is_raised(server):
  teacher = questions.teacher(server.url)
  with pytest.raises(ValueError, match='shorter'):
    list(teacher.answer(questions.requests(3), 0, [1]))
  assert not _threads()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(url='127.0.0.1:8000/v1'), r'endpoint\.url is .* give the address'),
    (dict(url=''), r'endpoint\.url is'),
    (dict(url='http://me:pw@host/v1'), 'holds a user'),
    (dict(url='http://host/v1?key=abc'), 'holds a user, a password, "\\?"'),
    (dict(concurrency=0), r'endpoint\.concurrency is 0; give 1 or more'),
    (dict(retries=-1), r'endpoint\.retries is -1'),
    (dict(timeout=0.0), r'endpoint\.timeout is 0'),
    (dict(max_tokens=-5), r'endpoint\.max_tokens is -5'),
    (dict(structured='yes'), r"endpoint\.structured is 'yes'"),
    (dict(model=''), r'traces\.model is empty'),
  ],
)
def test_bad_settings_are_errors_before_anything_is_asked(changes, message):
  with pytest.raises(ValueError, match=message) as raised:
    questions.teacher(**{'url': 'http://127.0.0.1:9/v1', **changes})
  assert 'pw' not in str(raised.value) and 'abc' not in str(raised.value)


def test_without_the_library_the_remedy_is_named(monkeypatch):
  for name in ('client', 'connection'):
    monkeypatch.delitem(sys.modules, f'gr2_jax.teacher.{name}', raising=False)
    monkeypatch.delattr(f'gr2_jax.teacher.{name}', raising=False)
  monkeypatch.setitem(sys.modules, 'openai', None)
  with pytest.raises(
    ModuleNotFoundError, match='launch/requirements/teacher.txt'
  ):
    questions.teacher('http://127.0.0.1:9/v1')


def test_libraries_do_not_write_requests_into_the_log(server, caplog):
  caplog.set_level(logging.DEBUG)
  questions.answers(questions.teacher(server.url), 2)
  names = {record.name.split('.')[0] for record in caplog.records}
  assert not names & {'openai', 'httpx2', 'httpcore2'}
