"""The server over HTTP, with an engine that sorts."""

import contextlib
import json
import threading
import time

import pytest
from starlette.testclient import TestClient

from gr2_jax.serve import app, openapi, requests
from gr2_jax.serve import service as service_lib
from tests.serve import fakes

LIST = {'history': ['i0'], 'candidates': ['i1', 'i3', 'i2']}
ADMIN = {'Authorization': 'Bearer admin'}


@contextlib.contextmanager
def _serve(engine=None, client=('127.0.0.1', 5), load=fakes.Sorts, **settings):
  """Yields a client of a server that is ready."""
  service = service_lib.Service(
    engine or fakes.Sorts(), service_lib.Settings(**settings), load
  )
  made = app.make(service)
  with TestClient(made, client=client, raise_server_exceptions=False) as found:
    while not service.ready:
      time.sleep(0.001)
    found.service = service
    yield found


@pytest.fixture(scope='module')
def client():
  with _serve(limits=requests.Limits(body=5000)) as found:
    yield found


def _order(document):
  return [result['item_id'] for result in document['results']]


def test_one_list(client):
  response = client.post('/v1/rerank', json=LIST)
  assert response.status_code == 200
  found = response.json()
  assert set(found) == {
    *('id', 'model', 'results', 'explanation', 'valid', 'usage', 'timings'),
  }
  assert found['model'] == 'fake/rl' and found['valid']
  assert found['results'] == [
    {'index': 1, 'item_id': 'i3', 'relevance_score': 0.0},
    {'index': 2, 'item_id': 'i2', 'relevance_score': -1.0},
    {'index': 0, 'item_id': 'i1', 'relevance_score': -2.0},
  ]
  assert found['usage'] == {
    'history': 1, 'candidates': 3, 'prompt_tokens': 0, 'completion_tokens': 0,
  }  # fmt: skip
  assert 0 <= found['timings']['device_ms'] <= found['timings']['total_ms']
  assert client.post('/v1/rerank', json=LIST).json()['id'] != found['id']


def test_explanations_and_titles(client):
  asked = {**LIST, 'explain': True, 'return_documents': True, 'top_n': 1}
  found = client.post('/v1/rerank', json=asked).json()
  assert found['explanation'] == 'Likes <i>late</i>.'
  (first,) = found['results']
  assert first['document'] == {'text': 'Film <b>3</b>'}


def test_errors_of_several_lists_belong_to_them(client):
  short, twice = ['i1'], ['slow', 'slow']
  asked = [{**LIST, 'candidates': x} for x in (short, twice, ['boom', 'i1'])]
  asked += [7, {**LIST, 'candidates': 5}, {'history': {}}]
  response = client.post('/v1/rerank', json={'inputs': [LIST, *asked]})
  assert response.status_code == 200
  first, *others = response.json()['outputs']
  assert _order(first) == ['i3', 'i2', 'i1']
  assert others[0]['error']['message'] == 'inputs[1]: give 2 or more.'
  # What the inside says of itself does not get out.
  assert others[2]['error'] == {
    'type': 'internal_error',
    'message': 'inputs[3]: it could not be answered.',
  }
  assert others[3]['error']['message'] == 'inputs[4]: give an object.'
  for number in (5, 6):
    message = others[number - 1]['error']['message']
    assert message.startswith(f"inputs[{number}]: 'candidates' must be a list")
  alone = client.post('/v1/rerank', json=asked[0])
  assert alone.status_code == 400
  assert alone.json()['error'] == {
    'type': 'invalid_request', 'message': 'The request: give 2 or more.',
  }  # fmt: skip
  alone = client.post('/v1/rerank', json=asked[2])
  assert alone.status_code == 500 and 'secret' not in alone.text


@pytest.mark.parametrize('path', openapi.RERANK)
def test_the_spelling_of_cohere(client, path):
  found = client.post(
    path,
    json={
      'model': 'fake/rl',
      'query': 'i0, i1',
      'documents': ['i2', 'A new film', 'i5'],
      'return_documents': True,
    },
  ).json()
  scores = [result['relevance_score'] for result in found['results']]
  assert scores == sorted(scores, reverse=True)
  assert 0 <= min(scores) and sum(scores) == pytest.approx(1)
  assert [result['index'] for result in found['results']] == [2, 0, 1]
  assert found['results'][2]['document'] == {'text': 'A new film'}
  assert 'item_id' not in found['results'][2]
  refused = client.post(path, json={**LIST, 'model': 'other'})
  assert refused.status_code == 404 and "'fake/rl'" in refused.text


def test_the_order_streams_before_the_explanation(client):
  response = client.post('/v1/rerank', json={**LIST, 'stream': True})
  assert response.headers['content-type'].startswith('text/event-stream')
  events = []
  for part in response.text.strip().split('\n\n'):
    name, data = part.split('\n')
    events.append((name, json.loads(data.removeprefix('data: '))))
  assert [name for name, _ in events] == ['event: order', 'event: answer']
  order, answer = (data for _, data in events)
  assert _order(order) == ['i3', 'i2', 'i1'] and order['explanation'] == ''
  assert answer['explanation'] and order['id'] == answer['id']
  refused = client.post(
    '/v1/rerank', json={**LIST, 'candidates': [], 'stream': True}
  )
  assert refused.status_code == 400


def test_a_deadline_gives_the_incoming_order():
  slow = {**LIST, 'candidates': ['i1', 'slow', 'i3']}
  with _serve(deadline=0.02) as client:
    found = client.post('/v1/rerank', json=slow).json()
    assert _order(found) == slow['candidates']
    assert found['valid'] is False and found['fallback'] == 'deadline'
    assert found['timings']['total_ms'] < 90
    # Longer where an explanation is wanted, and no longer than one asks for.
    found = client.post('/v1/rerank', json={**slow, 'explain': True}).json()
    assert found['valid'] and 'fallback' not in found
    asked = {**slow, 'explain': True, 'timeout_ms': 20}
    found = client.post('/v1/rerank', json=asked).json()
    assert found['fallback'] == 'deadline'
    # Without an incoming order there is an error.
    broken = {**LIST, 'candidates': ['slow', 'slow']}
    assert client.post('/v1/rerank', json=broken).status_code == 400
    text = client.get('/metrics').text
    assert 'gr2_fallbacks_total{reason="deadline"} 2.0' in text


def test_a_full_queue_is_429():
  slow = {**LIST, 'candidates': ['slow', 'i1']}
  with _serve(bound=3) as client:
    several = {'inputs': [slow] * 4}
    refused = client.post('/v1/rerank', json=several)
    assert refused.status_code == 429
    assert int(refused.headers['retry-after']) >= 1
    assert refused.json()['error']['type'] == 'overloaded'
    assert 'gr2_rejected_total 1.0' in client.get('/metrics').text
    assert client.post('/v1/rerank', json=slow).status_code == 200


def test_requests_at_the_same_time_share_batches():
  engine, found = fakes.Sorts(), []
  with _serve(engine, deadline=10.0) as client:
    slow = {**LIST, 'candidates': ['slow', 'i1']}

    def ask(i):
      asked = slow if i == 0 else {**LIST, 'history': [f'h{i}']}
      found.append(client.post('/v1/rerank', json=asked).status_code)

    threads = [threading.Thread(target=ask, args=[i]) for i in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert found == [200] * 8
  assert sum(size for _, size in engine.batches) == 8
  assert len(engine.batches) < 8


def test_direct_lists_do_not_wait_for_explanations():
  class Explains(fakes.Sorts):
    begun, go = threading.Event(), threading.Event()

    def answer(self, kind, lists, where):
      if kind == 'explained':
        self.begun.set()
        self.go.wait(10)
      return super().answer(kind, lists, where)

  engine, found = Explains(), []
  with _serve(engine, deadline=10.0, explained_deadline=10.0) as client:
    ask = lambda: client.post('/v1/rerank', json={**LIST, 'explain': True})
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    engine.begun.wait(10)
    assert client.post('/v1/rerank', json=LIST).json()['valid']
    engine.go.set()
    thread.join()
  assert found[0].json()['valid']
  assert engine.batches == [('direct', 1), ('explained', 1)]


def test_what_is_not_ready_says_so():
  class Slow(fakes.Sorts):
    go = threading.Event()

    def warm_up(self):
      self.go.wait(10)

  service = service_lib.Service(Slow(), service_lib.Settings(), fakes.Sorts)
  with TestClient(app.make(service)) as client:
    assert client.get('/healthz').json() == {'status': 'ok'}
    assert client.get('/readyz').status_code == 503
    refused = client.post('/v1/rerank', json=LIST)
    assert refused.status_code == 503 and refused.headers['retry-after']
    Slow.go.set()
    while client.get('/readyz').status_code != 200:
      time.sleep(0.001)
    assert client.post('/v1/rerank', json=LIST).status_code == 200


def test_a_model_that_cannot_be_compiled_is_not_healthy():
  class Broken(fakes.Sorts):
    def warm_up(self):
      raise RuntimeError('no memory')

  service = service_lib.Service(Broken(), service_lib.Settings(), fakes.Sorts)
  with TestClient(app.make(service)) as client:
    while client.get('/healthz').status_code == 200:
      time.sleep(0.001)
    reason = client.get('/healthz').json()['reason']
    assert reason == 'RuntimeError: no memory'
    assert client.get('/readyz').status_code == 503


def test_models_without_explanations():
  with _serve(fakes.Sorts(explains=False)) as client:
    refused = client.post('/v1/rerank', json={**LIST, 'explain': True})
    assert refused.status_code == 400 and 'no explanations' in refused.text
    (model,) = client.get('/v1/models').json()['data']
    assert model['id'] == 'fake/rl' and not model['explains']


def test_every_route_is_documented(client):
  document = client.get('/openapi.json').json()
  pages = {'/', '/page.js', '/page.css'}
  routes = {route.path for route in client.app.routes} - pages
  assert routes == set(document['paths'])
  for method in ('get', 'delete'):
    found = getattr(client, method)('/v1/rerank')
    assert found.status_code == 405 and 'error' in found.json()
  assert client.get('/nothing').status_code == 404


def test_all_is_counted(client):
  client.post('/v1/rerank', json=LIST)
  text = client.get('/metrics').text
  for name in (
    'gr2_requests_total{route="/v1/rerank",status="200"}',
    'gr2_request_seconds_bucket{',
    'gr2_queue_seconds_count{kind="direct"}',
    'gr2_batch_lists_sum{kind="direct"}',
    'gr2_batch_seconds_sum{kind="direct"}',
    'gr2_compilations_after_warm_up_total 0.0',
    'gr2_queue_lists 0.0',
  ):
    assert name in text


def test_compilations_count_on_the_device_thread_after_the_warm_up():
  class Compiles(fakes.Sorts):
    def warm_up(self):
      self.service.count_compilation()

    def answer(self, kind, lists, where):
      self.service.count_compilation()
      return super().answer(kind, lists, where)

  engine = Compiles()
  service = service_lib.Service(engine, service_lib.Settings(), fakes.Sorts)
  engine.service = service
  with TestClient(app.make(service)) as client:
    while client.get('/readyz').status_code != 200:
      time.sleep(0.001)
    name = 'gr2_compilations_after_warm_up_total'
    service.count_compilation()
    assert f'{name} 0.0' in client.get('/metrics').text
    client.post('/v1/rerank', json=LIST)
    assert f'{name} 1.0' in client.get('/metrics').text


def test_the_model_says_how_many_candidates_a_list_may_have():
  engine = fakes.Sorts()
  engine.most_candidates = 3
  with _serve(engine) as client:
    assert client.post('/v1/rerank', json=LIST).status_code == 200
    refused = client.post('/v1/rerank', json={**LIST, 'candidates': ['a'] * 4})
    assert refused.status_code == 400
    assert "'candidates' has 4 items, more than 3" in refused.text
