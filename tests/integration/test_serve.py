"""The server with a real, untrained model: what Python says, over HTTP."""

import contextlib
import dataclasses
import pathlib
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from gr2_jax import rerank
from gr2_jax.rank import evidence
from gr2_jax.ranker import catalogues, ranker, ranking
from gr2_jax.serve import app, service
from gr2_jax.serve import engine as engine_lib
from gr2_jax.sid import growth
from tests.integration import small

# Batches of two alone, so that few programs are compiled.
LISTS = [
  {'history': ['i1', 'i2', 'i3'], 'candidates': ['i4', 'i5', 'i6', 'i7']},
  {'history': [], 'candidates': ['i9', 'i8']},
  {'history': ['i1'], 'candidates': ['i3', 'i0', 'i19']},
  {'history': ['i5', 'i6'], 'candidates': ['i10', 'i11', 'i12']},
]


class Tokenizer:
  """Gives all new items the codes of the last item."""

  def codes(self, items):
    return np.full((len(items), 2), 4, np.int32)

  def distinct(self, items, codes, taken):
    keys = growth.content_keys([item.title for item in items])
    return growth.extend(taken[:-1], codes, keys, 5)


@pytest.fixture(scope='module')
def engine(tmp_path_factory, mesh1):
  weights = {'popularity': 0.3, 'content': 0.5, 'log_rank': 0.2}
  head = small.head(1.0, weights, evidence.NAMES, words=0.5)
  workdir = tmp_path_factory.mktemp('run')
  direct = small.make_ranker(workdir, mesh1, mode=ranking.DIRECT, given=head)
  explained = engine_lib.explaining(direct)
  return engine_lib.Engine(
    workdir=pathlib.Path(workdir),
    model='rl',
    direct=direct,
    explained=explained,
    trained=20,
    batch_size=2,
    longest=0,
    tokenizer=lambda: direct.tokenizer,
  )


@contextlib.contextmanager
def _serve(engine):
  """Yields a client of a server that is ready."""
  settings = service.Settings(
    batch_size=2, deadline=300.0, explained_deadline=300.0
  )
  made = service.Service(engine, settings, None)
  engine_lib.watch_compilations(made.count_compilation)
  with TestClient(app.make(made)) as found:
    while found.get('/readyz').status_code != 200:
      assert found.get('/healthz').status_code == 200
      time.sleep(0.1)
    yield found


@pytest.fixture(scope='module')
def client(engine):
  """Of a server that compiles what it needs when it needs it."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(ranker.Ranker, 'warm_up', lambda *given: None)
    with _serve(engine) as found:
      yield found


def _check_answers(client, engine):
  for explain in (False, True):
    found = client.post(
      '/v1/rerank', json={'inputs': LISTS, 'explain': explain}
    ).json()['outputs']
    asked = engine.explained if explain else engine.direct
    wanted = rerank.rank_records(asked, LISTS, 2)
    for output, record in zip(found, wanted, strict=True):
      results = output['results']
      assert [x['item_id'] for x in results] == record['order']
      assert [x['relevance_score'] for x in results] == pytest.approx(
        record['scores'], rel=1e-5, abs=1e-6
      )
      assert output['explanation'] == record['explanation_titles']
      assert output['valid']
  return client.get('/metrics').text


COUNT = 'gr2_compilations_after_warm_up_total'


def test_answers_are_those_of_python(client, engine):
  text = _check_answers(client, engine)
  # Nothing was compiled before, so that the count tells something.
  assert float(text.split(f'\n{COUNT} ')[1].split()[0]) > 0


@pytest.mark.slow
def test_nothing_is_compiled_after_the_warm_up(engine):
  """Compiles every shape: minutes."""
  with _serve(engine) as client:
    assert f'\n{COUNT} 0.0\n' in _check_answers(client, engine)


def test_usage_counts_tokens(client, engine):
  asked = {'inputs': LISTS[:2], 'explain': True}
  found = client.post('/v1/rerank', json=asked).json()
  index = engine.direct.store.dataset.index
  indices = lambda key: [
    np.array([index[i] for i in record[key]], np.int32) for record in LISTS[:2]
  ]
  wanted = engine.explained.rank(indices('history'), indices('candidates'), 2)
  assert found['usage'] == {
    'history': 3,
    'candidates': 6,
    'prompt_tokens': sum(each.prompt_tokens for each in wanted),
    'completion_tokens': sum(each.tokens for each in wanted),
  }
  assert min(each.tokens for each in wanted) > 0


def test_the_error_of_a_record_is_a_message(client):
  for record, message in (
    ({**LISTS[0], 'candidates': ['i1']}, 'The request: 1 candidates'),
    ({**LISTS[0], 'scores': [1]}, 'scores has 1 numbers for 4 candidates'),
    ({**LISTS[0], 'history': 5}, "'history' must be a list"),
  ):
    refused = client.post('/v1/rerank', json=record)
    assert refused.status_code == 400
    assert message in refused.json()['error']['message']


def test_a_server_without_a_text_encoder_says_so(client):
  items = [{'item_id': 'n', 'title': 'New', 'categories': []}]
  both = [LISTS[0], {**LISTS[0], 'items': items}]
  first, second = client.post('/v1/rerank', json={'inputs': both}).json()[
    'outputs'
  ]
  assert first['valid']
  message = second['error']['message']
  assert message.startswith('inputs[1]: this server takes no new items (')


@pytest.fixture
def reading(engine):
  """The engine with a tokenizer that reads the texts of new items."""
  return dataclasses.replace(engine, tokenizer=Tokenizer)


@pytest.mark.parametrize('kind', ['direct', 'explained'])
def test_texts_become_items(reading, kind):
  record = {
    'history': ['i1'],
    'candidates': ['i2', 'document 1'],
    'items': [{'item_id': 'document 1', 'title': 'New', 'categories': []}],
  }
  (found,) = reading.answer(kind, [record], ['it'])
  assert sorted(found.record['order']) == ['document 1', 'i2']
  assert 'unknown' not in found.record and not found.failed


def test_a_catalogue_grows_and_is_kept(reading, tmp_path):
  item = dataclasses.replace(small.ITEMS[0], item_id='n1', title='New')
  grown, sids = reading.grow([item])
  assert grown.knows('n1') and not reading.knows('n1')
  assert grown.title('n1') == 'New' and list(grown.added) == [item]
  record = {'history': ['n1'], 'candidates': ['i2', 'n1']}
  for kind in ('direct', 'explained'):
    (found,) = grown.answer(kind, [record], ['it'])
    assert 'unknown' not in found.record and found.record['valid']
  grown.save(tmp_path / 'catalogue.jsonl')
  read = catalogues.read_for(tmp_path / 'catalogue.jsonl', reading.direct.store)
  assert read.items == [item] and np.array_equal(read.sids, sids)
