"""The key goes to the server and nowhere else; headers and addresses."""

import datetime
import email.utils
import logging
import traceback

import pytest

from gr2_jax.teacher import connection, protocol
from tests.teacher import fake_server, questions

KEY = 'sk-Very/Secret+Key=0123456789'


@pytest.fixture
def key(monkeypatch):
  monkeypatch.setenv(connection.KEY, KEY)
  return KEY


def _echo(status):
  """Refuses with the headers that came."""
  return lambda request, headers: (
    status, {'error': {'message': f'bad {dict(headers)}'}, 'code': KEY},
  )  # fmt: skip


def test_the_key_is_sent(key):
  with fake_server.FakeServer() as server:
    questions.answers(questions.teacher(server.url))
  assert {h['authorization'] for h in server.headers} == {f'Bearer {KEY}'}


@pytest.mark.parametrize('status', [302, 400, 401, 404, 429, 500])
def test_an_error_that_echoes_the_key_does_not_show_it(
  status, key, caplog, capfd
):
  caplog.set_level(logging.DEBUG)
  with fake_server.FakeServer(refuse=_echo(status)) as server:
    teacher = questions.teacher(server.url, retries=1)
    with pytest.raises(protocol.EndpointError) as raised:
      questions.answers(teacher)
  shown = ''.join(traceback.format_exception(raised.value))
  assert f'{status}' in str(raised.value)
  assert 'Bearer [key]' in str(raised.value)
  streams = capfd.readouterr()
  for text in (shown, caplog.text, streams.out, streams.err):
    assert KEY not in text


def test_an_answer_that_echoes_the_key_does_not_keep_it(key):
  with fake_server.FakeServer(lambda *_: f'Your key is {KEY}.') as server:
    found = questions.answers(questions.teacher(server.url))
  assert {a.text for a in found.values()} == {'Your key is [key].'}


def test_another_model_named_like_the_key_does_not_show_it(key):
  with fake_server.FakeServer(model=KEY) as server:
    with pytest.raises(protocol.EndpointError, match=r"as '\[key\]'"):
      questions.answers(questions.teacher(server.url))


def test_what_a_teacher_says_of_itself_has_no_key(key):
  teacher = questions.teacher('http://127.0.0.1:9/v1')
  assert KEY not in repr((teacher, teacher.identity, teacher.__dict__))


@pytest.mark.parametrize('char', ['\n', ' ', '\x00', 'ü', '\x7f'])
def test_a_key_that_cannot_be_sent_is_not_shown(char, monkeypatch):
  # The operating system takes no NUL into its environment.
  monkeypatch.setattr(
    connection.os, 'environ', {connection.KEY: f'sk-ab{char}cd'}
  )
  with pytest.raises(ValueError, match='GR2_TEACHER_API_KEY') as raised:
    questions.teacher('http://127.0.0.1:9/v1')
  assert 'sk-ab' not in str(raised.value)


def test_a_line_break_at_the_end_is_no_part_of_the_key(monkeypatch):
  monkeypatch.setenv(connection.KEY, f'{KEY}\n')
  assert connection.Key().reveal() == KEY


def test_a_short_key_does_not_change_answers(monkeypatch):
  monkeypatch.setenv(connection.KEY, 'a')
  with fake_server.FakeServer() as server:
    found = questions.answers(questions.teacher(server.url))
  assert all(answer.problem is None for answer in found.values())


@pytest.mark.parametrize(
  ('url', 'warned'),
  [
    ('http://127.0.0.1:8000/v1', False),
    ('http://[::1]:8000/v1', False),
    ('http://localhost/v1', False),
    ('https://api.example.org/v1', False),
    ('http://api.example.org/v1', True),
    ('http://10.0.0.7:8000/v1', True),
  ],
)
def test_a_key_over_an_open_network_is_warned_of(url, warned, key, caplog):
  questions.teacher(url)
  assert ('unencrypted' in caplog.text) == warned
  assert KEY not in caplog.text


def test_without_a_key_there_is_nothing_to_warn_of(monkeypatch, caplog):
  monkeypatch.delenv(connection.KEY, raising=False)
  questions.teacher('http://api.example.org/v1')
  assert caplog.text == ''


def test_words_of_servers_become_one_short_line(key):
  words = connection.Key().quote(f'a\x1b[31m\n{KEY}\r\nb' + 'c' * 2000)
  assert words.startswith('a [31m [key] bccc') and words.endswith(' ...')
  assert len(words) < 700 and words.isprintable()


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
  assert connection.retry_after(header, NOW) == seconds
