"""Faults between a run and its server; what passes changes no answer."""

import datetime
import email.utils
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.teacher import faults, reply
from tests.teacher import fake_server, proxy, questions


@pytest.fixture(scope='module')
def server():
  with fake_server.FakeServer() as running:
    yield running


@pytest.fixture(scope='module')
def undisturbed(server):
  return questions.rankings(questions.answers(questions.teacher(server.url), 8))


@pytest.mark.parametrize('fault', proxy.TRANSIENT)
def test_a_fault_that_passes_changes_nothing(fault, server, undisturbed):
  schedule = lambda number: fault if number in (1, 2, 5) else proxy.PASS
  with proxy.Proxy(server.url, schedule) as between:
    teacher = questions.teacher(
      between.url, timeout=0.4 if fault in ('late', 'endless') else 5.0
    )
    found = questions.rankings(questions.answers(teacher, 8))
  assert found == undisturbed
  assert between.seen.count(fault) == 3
  extra = 0 if fault == 'slow' else 3
  assert len(between.seen) >= 8 + extra


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.6))
def test_no_schedule_of_faults_changes_an_answer(
  seed, share, server, undisturbed
):
  quick = [f for f in proxy.TRANSIENT if f not in ('late', 'endless', 'flood')]
  schedule = proxy.by_chance(seed, quick, share)
  with proxy.Proxy(server.url, schedule) as between:
    teacher = questions.teacher(between.url, retries=200)
    found = questions.rankings(questions.answers(teacher, 8))
  assert found == undisturbed


def test_every_kind_of_fault_at_random_moments(server, undisturbed):
  with proxy.Proxy(server.url, proxy.by_chance(3)) as between:
    teacher = questions.teacher(between.url, retries=200, timeout=0.3)
    found = questions.rankings(questions.answers(teacher, 8))
  assert found == undisturbed


@pytest.mark.parametrize(
  ('fault', 'words'),
  [
    ('late', r'no whole answer within 0\.2 s \(endpoint\.timeout\)'),
    ('endless', 'no whole answer within'),
    ('flood', 'an answer of over 16777216 bytes'),
    ('drop_before', 'no connection'),
    ('drop_middle', 'no connection'),
    ('reset', 'no connection'),
    ('busy', 'status 429: .*busy'),
    ('error', 'status 500: .*Error.* set endpoint.structured='),
    ('half_json', 'is not whole JSON'),
    ('no_json', 'is not whole JSON'),
    ('bad_utf8', 'is not UTF-8'),
  ],
)
def test_a_fault_that_stays_ends_the_run(fault, words, server, undisturbed):
  """The first four requests pass; their answers are kept."""
  schedule = lambda number: fault if number >= 4 else proxy.PASS
  found = {}
  with proxy.Proxy(server.url, schedule) as between:
    late = fault in ('late', 'endless')
    teacher = questions.teacher(
      between.url, retries=2, concurrency=1, timeout=0.2 if late else 5.0
    )
    with pytest.raises(faults.EndpointError, match=words) as raised:
      questions.answers(teacher, 8, into=found)
    message = str(raised.value)
    assert f"{between.url} (model 'm') gave no answer in 3 tries" in message
    assert 'All answers so far are kept' in message
    assert between.seen == [proxy.PASS] * 4 + [fault] * 3
  assert questions.rankings(found) == {i: undisturbed[i] for i in range(4)}


def test_nobody_listens():
  with fake_server.FakeServer() as gone:
    url = gone.url
  with pytest.raises(faults.EndpointError, match='no connection'):
    questions.answers(questions.teacher(url, retries=1))


def test_another_model_is_refused(server):
  schedule = lambda number: 'other_model' if number == 2 else proxy.PASS
  found = {}
  with proxy.Proxy(server.url, schedule) as between:
    teacher = questions.teacher(between.url, 'mine', concurrency=1)
    with pytest.raises(faults.EndpointError) as raised:
      questions.answers(teacher, into=found)
    assert "'mine' and answered as 'another-model'" in str(raised.value)
    assert sorted(found) == [0, 1] and len(between.seen) == 3
    teacher = questions.teacher(between.url, 'mine', replies_as='another-model')
    assert len(questions.answers(teacher)) == 6


@pytest.mark.parametrize(
  ('name', 'same'),
  [
    ('org/m-1', True),
    ('org/m-1-2026-01-31', True),
    ('org/m-1-0131', True),
    ('org/m-1@main', True),
    ('alias', True),
    ('org/m-1-mini', False),
    ('org/m-1-2026-01-31-mini', False),
    ('org/m-10', False),
    ('org/m', False),
    ('', False),
  ],
)
def test_which_names_are_the_same_model(name, same):
  found = reply.Reply(name, '', reply.STOP, 0, 0)
  assert reply.is_from(found, 'org/m-1', 'alias') == same


def test_no_alias_is_no_name():
  assert not reply.is_from(reply.Reply('', '', reply.STOP, 0, 0), 'm', '')


NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
  ('header', 'seconds'),
  [
    (None, 0),
    ('7', 7),
    (' 2.5 ', 2.5),
    ('-3', 0),
    ('nan', 0),
    ('inf', 0),
    ('soon', 0),
    ('Thu, 01 Jan 2026 00:00:20 GMT', 20),
    ('Thu, 01 Jan 2026 00:00:20', 20),
    (email.utils.format_datetime(NOW + datetime.timedelta(hours=1)), 3600),
    ('Wed, 31 Dec 2025 23:59:00 GMT', 0),
    ('Thu, 99 Jan 2026 00:00:20 GMT', 0),
  ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
  assert faults.retry_after(header, NOW) == seconds


def test_pauses_grow_and_are_bounded():
  for failures, longest in [(1, 2), (2, 4), (4, 16), (99, 60), (10**6, 60)]:
    pauses = [faults.pause(failures, 2.0, 0.0) for _ in range(50)]
    assert all(longest / 2 <= pause <= longest for pause in pauses)
    assert len(set(pauses)) > 1
  assert faults.pause(1, 2.0, 30.0) == 30
  assert faults.pause(1, 2.0, 1e9) == faults.LONGEST_ASKED


def _completion(**changes):
  message = {'role': 'assistant', 'content': 'x'}
  choice = {'index': 0, 'finish_reason': 'stop', 'message': message}
  return {'model': 'm', 'choices': [choice], **changes}


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    ([], "'model' is missing"),
    ('text', "'model' is missing"),
    ({}, "'model' is missing"),
    (_completion(model=3), "'model' is missing or not of type str"),
    (_completion(choices={}), "'choices'"),
    (_completion(choices=[]), 'has no choices'),
    (_completion(choices=[7]), "'message'"),
    (_completion(choices=[{'message': {'content': [1]}}]), "'content'"),
    (_completion(usage=[1]), "'usage'"),
    ({'error': {'message': 'overloaded'}}, 'an error in place .*overloaded'),
  ],
)
def test_what_is_no_completion_is_a_fault(value, words):
  with pytest.raises(faults.Fault, match=words):
    reply.read(json.dumps(value).encode())


@pytest.mark.parametrize('number', [True, -1, 2.5, '7', None, 2**60])
def test_impossible_counts_are_none(number):
  body = json.dumps(_completion(usage={'prompt_tokens': number}))
  found = reply.read(body.encode())
  assert found.prompt_tokens is None and found.completion_tokens is None


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_fault(body):
  with pytest.raises(faults.Fault):
    reply.read(body)


_VALUES = st.recursive(
  st.none() | st.booleans() | st.integers() | st.text(max_size=4),
  lambda x: (
    st.lists(x, max_size=2)
    | st.dictionaries(
      st.sampled_from(['type', 'text', 'content', 'message', 'error']), x
    )
  ),
  max_leaves=6,
)


def _fuzz(examples):
  """Changes what a completion holds, at each of its levels."""
  part = lambda *keys: st.dictionaries(
    st.sampled_from(keys), _VALUES, max_size=2
  )

  @settings(max_examples=examples, deadline=None, database=None)
  @given(
    part('model', 'choices', 'usage', 'error'),
    part('message', 'finish_reason'),
    part('content', 'reasoning_content', 'reasoning', 'refusal'),
    part('prompt_tokens', 'completion_tokens'),
  )
  def run(top, choice, message, usage):
    choice = {'message': {'content': 'x'} | message} | choice
    value = _completion(choices=[choice], usage=usage) | top
    try:
      found = reply.read(json.dumps(value).encode())
    except faults.Fault:
      return
    assert found.end in (reply.STOP, reply.LENGTH, reply.REFUSED, reply.THOUGHT)
    found.text.encode()

  run()


def test_no_completion_breaks_the_reader():
  _fuzz(300)


@pytest.mark.slow
def test_ten_thousand_completions():
  _fuzz(10_000)


def test_deep_json_is_a_fault():
  with pytest.raises(faults.Fault, match='not whole JSON'):
    reply.read(b'[' * 200_000)


def test_a_huge_number_is_a_fault():
  with pytest.raises(faults.Fault, match='not whole JSON'):
    reply.read(b'{"created": ' + b'9' * 5000 + b'}')


class _Raw(fake_server.Handler):
  """Sends the server's bytes, whatever they are, and hangs up."""

  def do_POST(self):
    self.receive()
    self.close_connection = True
    self.wfile.write(self.server.bytes)


_BODY = json.dumps(_completion()).encode()
_WHOLE = (
  b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
  b'Content-Length: %d\r\n\r\n' % len(_BODY)
) + _BODY
_ODD = (
  b'',
  b'HTTP/1.1 200 OK\r\n\r\n',
  b'HTTP/1.1 204 No Content\r\n\r\n',
  b'HTTP/1.1 999 \xff\r\nContent-Length: 1\r\n\r\n\xff',
  b'HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\n\xff',
  b'HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n\xff\xfe',
  b'HTTP/1.1 400 X\r\nContent-Length: 2\r\n\r\n\xff\xfe',
  b'HTTP/1.1 400 X\r\nContent-Length: 1\r\n\r\n3',
  b'HTTP/1.1 302 X\r\nLocation: http://[::1\r\n\r\n',
  b'HTTP/1.1 307 X\r\nLocation: /v1/chat/completions\r\n\r\n',
  b'HTTP/1.1 429 X\r\nRetry-After: \xff\r\n\r\n',
  b'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx',
  b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
  b'HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n',
  b'\x16\x03\x01\x02\x00',
)


def _ends_well(server, sent):
  server.bytes = sent
  teacher = questions.teacher(
    server.url, retries=1, concurrency=1, structured='none', timeout=2.0
  )
  try:
    return len(questions.answers(teacher, 1))
  except faults.EndpointError:
    return 0


@pytest.fixture(scope='module')
def raw():
  with fake_server.Server(_Raw) as running:
    yield running


@pytest.mark.parametrize('sent', _ODD)
def test_odd_answers_are_faults(sent, raw):
  assert _ends_well(raw, sent) == 0


def test_a_whole_answer_is_none(raw):
  assert _ends_well(raw, _WHOLE) == 1


@settings(max_examples=15, deadline=None)
@given(
  place=st.integers(0, len(_WHOLE) - 1),
  number=st.integers(0, 40),
  other=st.binary(max_size=12),
)
def test_answers_broken_anywhere_are_faults_or_answers(
  place, number, other, raw
):
  """Nothing but an answer or the one error that ends a run."""
  _ends_well(raw, _WHOLE[:place] + other + _WHOLE[place + number :])
