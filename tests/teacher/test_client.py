"""Faults between a run and its server; what passes changes no answer."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.teacher import client, protocol
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
    with pytest.raises(protocol.EndpointError, match=words) as raised:
      questions.answers(teacher, 8, into=found)
    message = str(raised.value)
    assert f"{between.url} (model 'm') gave no answer in 3 tries" in message
    assert 'All answers so far are kept' in message
    assert between.seen == [proxy.PASS] * 4 + [fault] * 3
  assert questions.rankings(found) == {i: undisturbed[i] for i in range(4)}


def test_nobody_listens():
  with fake_server.FakeServer() as gone:
    url = gone.url
  with pytest.raises(protocol.EndpointError, match='no connection'):
    questions.answers(questions.teacher(url, retries=1))


def test_another_model_is_refused(server):
  schedule = lambda number: 'other_model' if number == 2 else proxy.PASS
  found = {}
  with proxy.Proxy(server.url, schedule) as between:
    teacher = questions.teacher(between.url, 'mine', concurrency=1)
    with pytest.raises(protocol.EndpointError) as raised:
      questions.answers(teacher, into=found)
    assert "'mine' and answered as 'another-model'" in str(raised.value)
    assert sorted(found) == [0, 1] and len(between.seen) == 3
    teacher = questions.teacher(between.url, 'mine', replies_as='another-model')
    assert len(questions.answers(teacher)) == 6


def test_pauses_grow_and_are_bounded():
  for failures, longest in [(1, 2), (2, 4), (4, 16), (99, 60), (10**6, 60)]:
    pauses = [client.pause(failures, 2.0, 0.0) for _ in range(50)]
    assert all(longest / 2 <= pause <= longest for pause in pauses)
    assert len(set(pauses)) > 1
  assert client.pause(1, 2.0, 30.0) == 30
  assert client.pause(1, 2.0, 1e9) == client.LONGEST_ASKED


class _Raw(fake_server.Handler):
  """Sends the server's bytes, whatever they are, and hangs up."""

  def do_POST(self):
    self.receive()
    self.close_connection = True
    self.wfile.write(self.server.bytes)


_BODY = json.dumps(
  {'model': 'm', 'choices': [{'message': {'content': 'x'}}]}
).encode()
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
  except protocol.EndpointError:
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
