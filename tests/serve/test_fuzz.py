"""Whatever comes in, the server answers, and goes on."""

import contextlib
import http.client
import json
import socket

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.serve import fakes, hostile, live

GOOD = json.dumps({'history': [], 'candidates': ['i1', 'i3']}).encode()


@pytest.fixture(scope='module')
def port():
  with live.port(fakes.Sorts(), admin_token='admin') as found:
    yield found


def _post(port, body, path='/v1/rerank', headers=()):
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
  with contextlib.closing(connection):
    connection.request('POST', path, body, dict(headers))
    response = connection.getresponse()
    events = response.getheader('content-type', '').startswith('text/event')
    return response.status, response.read(), events


def _is_well(port):
  status, content, _ = _post(port, GOOD)
  assert status == 200
  results = json.loads(content)['results']
  assert [result['item_id'] for result in results] == ['i3', 'i1']


@pytest.mark.slow
@hostile.SETTINGS
@hypothesis.given(
  body=hostile.BODIES,
  path=st.sampled_from(['/v1/rerank', '/rerank', '/v2/rerank']),
)
def test_bodies(port, body, path):
  hostile.check(*_post(port, body, path))
  _is_well(port)


@pytest.mark.slow
@hostile.SETTINGS
@hypothesis.given(
  body=hostile.BODIES, path=st.sampled_from(['items', 'reload'])
)
def test_bodies_of_changes(port, body, path):
  admin = {'Authorization': 'Bearer admin'}
  status, content, _ = _post(port, body, f'/v1/{path}', admin)
  # There is no other run to take.
  hypothesis.assume(not (path == 'reload' and status == 500))
  assert status in (200, 400), content
  assert json.loads(content)
  _is_well(port)


# `[long]` becomes 70,000 bytes when it is sent: Hypothesis shows its examples.
_LINES = st.sampled_from(
  [
    *(b'POST /v1/rerank HTTP/1.1\r\n', b'GET / HTTP/1.1\r\n', b'Host: x\r\n'),
    *(b'GET /metrics HTTP/9.9\r\n', b'Content-Length: -1\r\n', b'\r\n', b'\n'),
    *(b'Content-Length: 5\r\n', b'Content-Length: 99999999999999999999\r\n'),
    *(b'Transfer-Encoding: chunked\r\n', b'ffffffffffffffff\r\n', b'5\r\n'),
    *(b'Connection: Upgrade\r\nUpgrade: websocket\r\n', b'X: \xff\0\r\n'),
    *(b'OPTIONS * HTTP/1.1\r\n', b'POST //%2e%2e/%00 HTTP/1.1\r\n'),
    *(b'Expect: 100-continue\r\n', b'Authorization: Bearer \xff\r\n', b'{}'),
    *(b'X: [long]\r\n', GOOD),
  ]
)


@pytest.mark.slow
@hostile.SETTINGS
@hypothesis.given(st.lists(_LINES | st.binary(max_size=20), max_size=12))
def test_bytes(port, parts):
  address = ('127.0.0.1', port)
  with (
    contextlib.suppress(ConnectionError),
    socket.create_connection(address, timeout=60) as made,
  ):
    made.sendall(b''.join(parts).replace(b'[long]', b'y' * 70000))
    with contextlib.suppress(OSError):  # The server has closed it already.
      made.shutdown(socket.SHUT_WR)
    found = b''
    while part := made.recv(65536):
      found += part
    assert b'HTTP/1.1 500' not in found, found
  _is_well(port)
