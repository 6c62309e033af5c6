"""Another run and new items, while requests go on."""

import threading

import pytest

from gr2_jax.serve import service as service_lib
from tests.serve import fakes
from tests.serve.test_app import ADMIN, LIST, _serve

ITEMS = {'items': [{'item_id': 'n1', 'title': 'New', 'categories': ['x']}]}


def test_a_reload_and_back():
  made = []

  def load(workdir):
    if workdir.name == 'absent':
      raise FileNotFoundError('No run there.')
    made.append(fakes.Sorts(workdir))
    return made[-1]

  with _serve(admin_token='admin', load=load) as client:
    ask = lambda body: client.post('/v1/reload', json=body, headers=ADMIN)
    found = ask({'workdir': '/runs/second'})
    assert found.json() == {'model': 'second/rl', 'previous': 'fake/rl'}
    assert made[0].warm == 1
    assert client.post('/v1/rerank', json=LIST).json()['model'] == 'second/rl'
    refused = ask({'workdir': '/runs/absent'})
    assert refused.status_code == 400 and 'No run there.' in refused.text
    assert client.post('/v1/rerank', json=LIST).json()['model'] == 'second/rl'
    assert ask({}).json()['model'] == 'second/rl'
    found = ask({'workdir': '/runs/fake'})
    assert found.json() == {'model': 'fake/rl', 'previous': 'second/rl'}
    for body in ({'workdir': 5}, {'workdir': 'a\0b'}, {'other': 'x'}):
      assert ask(body).status_code == 400


def test_no_request_is_lost_in_a_reload():
  found, stop = [], threading.Event()
  with _serve(admin_token='admin', deadline=20.0) as client:

    def ask():
      while not stop.is_set():
        response = client.post('/v1/rerank', json=LIST)
        found.append((response.status_code, response.json()['model']))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
      thread.start()
    for name in ('a', 'b', 'fake'):
      body = {'workdir': f'/runs/{name}'}
      assert client.post('/v1/reload', json=body, headers=ADMIN).is_success
    stop.set()
    for thread in threads:
      thread.join()
  assert {status for status, _ in found} == {200}
  assert {name for _, name in found} <= {'fake/rl', 'a/rl', 'b/rl'}


def test_one_change_at_a_time():
  go, begun = threading.Event(), threading.Event()

  def load(workdir):
    begun.set()
    go.wait(10)
    return fakes.Sorts(workdir)

  with _serve(admin_token='admin', load=load) as client:
    ask = lambda: client.post('/v1/reload', json={}, headers=ADMIN)
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    begun.wait(10)
    assert ask().status_code == 409
    # The old model goes on answering.
    assert client.post('/v1/rerank', json=LIST).status_code == 200
    go.set()
    thread.join()
    assert found[0].status_code == 200


def test_the_catalogue_grows(tmp_path):
  engine, path = fakes.Sorts(), tmp_path / 'catalogue.jsonl'
  with _serve(engine, admin_token='admin', catalogue=path) as client:
    ask = lambda body: client.post('/v1/items', json=body, headers=ADMIN)
    assert ask(ITEMS).json() == {
      'items': [{'item_id': 'n1', 'sid': [9]}], 'catalogue': 10,
    }  # fmt: skip
    assert engine.saved == [(path, ['n1'])]
    asked = {**LIST, 'candidates': ['n1', 'i1'], 'return_documents': True}
    first, _ = client.post('/v1/rerank', json=asked).json()['results']
    assert first['document'] == {'text': 'New'}
    again = ask(ITEMS)
    assert again.status_code == 400 and "already: ['n1']" in again.text
    # They go along to another run.
    client.post('/v1/reload', json={'workdir': '/runs/b'}, headers=ADMIN)
    found = client.post('/v1/rerank', json=asked).json()
    assert found['model'] == 'b/rl'
    assert found['results'][0]['document'] == {'text': 'New'}


@pytest.mark.parametrize(
  'body',
  [
    {},
    {'items': []},
    {'items': 5},
    {'items': [5]},
    {'items': [{'item_id': 'x'}]},
    {'items': [{'item_id': 'x', 'title': 5, 'categories': []}]},
    {'items': [*ITEMS['items'], {**ITEMS['items'][0], 'title': 'Other'}]},
    {**ITEMS, 'more': 1},
    [1],
  ],
)
def test_items_that_are_none(body):
  with _serve(admin_token='admin') as client:
    found = client.post('/v1/items', json=body, headers=ADMIN)
    assert found.status_code == 400 and found.json()['error']['message']


def test_settings_do_not_show_their_tokens():
  shown = repr(service_lib.Settings(token='abc', admin_token='def'))
  assert 'abc' not in shown and 'def' not in shown
