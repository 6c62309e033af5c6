"""What is promised about hostile requests, a test each."""

import contextlib
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax.serve import access, requests
from tests.serve.test_app import ADMIN, LIST, _serve

CHANGES = ('/v1/reload', '/v1/items')


@pytest.fixture(scope='module')
def client():
  limits = requests.Limits(body=5000, body_seconds=0.3)
  with _serve(token='all', admin_token='admin', limits=limits) as found:
    yield found


ALL = {'Authorization': 'Bearer all'}


def _post(client, body, path='/v1/rerank', headers=ALL):
  return client.post(path, content=body, headers=headers)


def test_a_token_is_needed(client):
  assert client.post('/v1/rerank', json=LIST, headers=ALL).status_code == 200
  for headers in (
    {},
    {'Authorization': 'Bearer al'},
    {'Authorization': 'Bearer alll'},
    {'Authorization': 'all'},
    {'Authorization': b'Bearer \xe4\xff'},
    {'Authorization': 'Bearer admin'},
  ):
    for method, path in (('POST', '/v1/rerank'), ('GET', '/v1/models')):
      refused = client.request(method, path, headers=headers)
      assert refused.status_code == 401, headers
      assert refused.headers['www-authenticate'] == 'Bearer'
  # Probes and pages need none.
  for path in ('/healthz', '/readyz', '/metrics', '/', '/openapi.json'):
    assert client.get(path).status_code == 200


def test_changes_need_a_token_of_their_own(client):
  for path in CHANGES:
    for headers in ({}, ALL):
      assert client.post(path, json={}, headers=headers).status_code == 401
  with _serve() as open_to_all:
    for path in CHANGES:
      refused = open_to_all.post(path, json={}, headers=ADMIN)
      assert refused.status_code == 403 and 'GR2_ADMIN_TOKEN' in refused.text


def test_changes_come_from_this_machine():
  far = {'client': ('10.0.0.7', 5), 'admin_token': 'admin'}
  with _serve(**far) as client:
    # Whatever a proxy or a client claims.
    headers = {**ADMIN, 'X-Forwarded-For': '127.0.0.1'}
    for path in CHANGES:
      refused = client.post(path, json={}, headers=headers)
      assert refused.status_code == 403 and '--remote_admin' in refused.text
  with _serve(**far, remote_admin=True) as client:
    assert client.post('/v1/reload', json={}, headers=ADMIN).is_success


@pytest.mark.parametrize(
  ('host', 'local'),
  [
    ('127.0.0.1', True),
    ('127.8.8.8', True),
    ('::1', True),
    ('::ffff:127.0.0.1', True),
    ('::ffff:10.0.0.1', False),
    ('10.0.0.1', False),
    ('localhost.example', False),
    (None, False),
  ],
)
def test_addresses_of_this_machine(host, local):
  assert access.is_local(host) is local


def test_bodies_have_a_size(client):
  found = _post(client, b'x' * 5001)
  assert found.status_code == 413 and '5,000 bytes' in found.text

  def chunks():
    for _ in range(100):
      yield b' ' * 100

  # Without a length, too: no more than the limit is read.
  assert _post(client, chunks()).status_code == 413
  assert _post(client, b'x' * 10_000_000).status_code == 413
  for path in CHANGES:
    assert _post(client, b'x' * 5001, path, ADMIN).status_code == 413


class Body:
  """A request whose body comes in parts, or breaks off."""

  headers: dict = {}

  def __init__(self, *parts):
    self._parts = parts

  async def stream(self):
    for part in self._parts:
      if isinstance(part, Exception):
        raise part
      yield part


def _refused(*parts):
  import asyncio

  with pytest.raises(requests.Refused) as caught:
    asyncio.run(access.read_body(Body(*parts), requests.Limits(body=10)))
  return caught.value.status


def test_bodies_that_are_cut_off_or_slow():
  assert _refused(b'{', access.ClientDisconnect()) == 400
  assert _refused(b'{', TimeoutError()) == 408
  assert _refused(b'x' * 6, b'y' * 6) == 413


@pytest.mark.parametrize(
  'body',
  [
    b'',
    b'\xff\xfe',
    b'[' * 4000,
    b'{"a":' * 900,
    b'{"history": ' + b'[' * 500 + b']' * 500 + b'}',
    b'9' * 4999,
    b'{"history": [1e999], "candidates": [-Infinity]}',
    b'{"history": ["\\ud800"], "candidates": ["a", "b"]}',
    b'null',
    b'{"inputs": {"a": 1}}',
  ],
)
def test_hostile_bodies_are_400(client, body):
  begin = time.monotonic()
  found = _post(client, body)
  assert found.status_code == 400 and found.json()['error']['message']
  assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
  'name',
  ['../../etc/passwd', '<script>alert(1)</script>', '\x00\x1b[31m', "' OR 1=1",
   '\u202e\ufeff', 'ä' * 300, '{}', '%s%n', '${jndi:ldap://x}'],
)  # fmt: skip
def test_hostile_ids_are_ids(client, name):
  asked = {'history': [name], 'candidates': ['i1', name]}
  response = client.post('/v1/rerank', json=asked, headers=ALL)
  found = {r['item_id'] for r in response.json()['results']}
  assert response.status_code == 200 and found == {'i1', name}
  assert response.headers['content-type'] == 'application/json'


@pytest.mark.parametrize(
  'path',
  ['/../gr2_jax/config.py', '/%2e%2e/%2e%2e/etc/passwd', '//etc/passwd',
   '/page.html', '/page.js/../app.py', '/v1/rerank/..%2f..%2f'],
)  # fmt: skip
def test_paths_lead_nowhere(client, path):
  found = client.get(path, headers=ALL)
  assert found.status_code in (404, 405)
  assert found.headers['content-type'] == 'application/json'


def test_the_page_runs_its_own_script_alone(client):
  for path in ('/', '/page.js', '/page.css'):
    found = client.get(path)
    policy = found.headers['content-security-policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy
    assert found.headers['x-content-type-options'] == 'nosniff'
  # Nothing is put in as HTML.
  script = client.get('/page.js').text
  for name in ('innerHTML', 'outerHTML', 'insertAdjacent', 'document.write'):
    assert name not in script


@hypothesis.settings(
  deadline=None,
  max_examples=50,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(st.binary(max_size=200) | st.text(max_size=100))
def test_no_body_breaks_the_server(client, body):
  for path in ('/v1/rerank', '/v2/rerank'):
    found = _post(client, body if isinstance(body, bytes) else body.encode())
    assert found.status_code == 400, path
  with contextlib.suppress(UnicodeEncodeError):
    text = body if isinstance(body, str) else body.decode('latin-1')
    asked = {'history': [text], 'candidates': [text, f'{text}x']}
    found = client.post('/v1/rerank', json=asked, headers=ALL)
    assert found.status_code in (200, 400)
