"""Bodies: both spellings, limits, and whatever else comes in."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax.serve import parse, requests

LIMITS = requests.Limits(
  depth=6, inputs=3, candidates=4, history=5, text=20, items=3
)
KNOWN = {'i1', 'i2', 'i3'}


def _read(document):
  body = document if isinstance(document, bytes) else json.dumps(document)
  body = body if isinstance(body, bytes) else body.encode()
  return parse.read(body, KNOWN.__contains__, LIMITS)


def _refusal(document):
  with pytest.raises(requests.Refused) as caught:
    _read(document)
  assert (caught.value.status, caught.value.kind) == (400, 'invalid_request')
  return caught.value.message


def test_a_list_of_our_own():
  lists = {'history': ['i1'], 'candidates': ['i2', 'i3'], 'scores': [1, 2]}
  found = _read({**lists, 'top_n': 1, 'timeout_ms': 5, 'model': 'm'})
  assert found == requests.Request(
    [requests.Input(lists, 'The request')], model='m', top_n=1, timeout_ms=5
  )
  found = _read({**lists, 'features': None, 'stream': True})
  assert found.explain and found.stream and found.inputs[0].record == lists


def test_whole_numbers_are_ids():
  (one,) = _read({'history': [1, 'i1', 2.5], 'candidates': [3, True]}).inputs
  assert one.record == {'history': ['1', 'i1', 2.5], 'candidates': ['3', True]}
  body = json.dumps({'query': [1], 'documents': [2, {'id': 3}, 'noir']})
  (one,) = parse.read(
    body.encode(), {'1', '2', '3'}.__contains__, LIMITS
  ).inputs
  assert one.record['history'] == ['1']
  assert one.record['candidates'] == ['2', '3', 'document 2']


def test_the_error_of_a_list_stays_with_it():
  good = {'history': [], 'candidates': ['a', 'b']}
  found = _read({'inputs': [good, 5, {**good, 'candidates': ['x' * 21]}]})
  assert found.many and [x.where for x in found.inputs] == [
    'inputs[0]', 'inputs[1]', 'inputs[2]',
  ]  # fmt: skip
  assert [x.error for x in found.inputs] == [
    '',
    'inputs[1]: give an object.',
    'inputs[2]: a text has more than 20 characters.',
  ]
  five = {**good, 'candidates': list('abcde')}
  (one,) = _read({'inputs': [five]}).inputs
  assert one.error == "inputs[0]: 'candidates' has 5 items, more than 4."
  assert _refusal(five) == (
    "The request: 'candidates' has 5 items, more than 4."
  )


def test_the_spelling_of_cohere_and_jina():
  found = _read(
    {
      'model': 'x',
      'query': 'i1, i2',
      'documents': ['i3', 'A new film', {'text': 'i2'}, {'id': 'i1'}],
      'top_n': 2,
      'max_tokens_per_doc': 100,
    }
  )
  (one,) = found.inputs
  assert found.probabilities and found.top_n == 2
  assert one.record == {
    'history': ['i1', 'i2'],
    'candidates': ['i3', 'document 1', 'i2', 'i1'],
    'items': [
      {'item_id': 'document 1', 'title': 'A new film', 'categories': []}
    ],
  }
  assert one.texts == {'document 1': 'A new film'}
  (one,) = _read({'query': 'i1, and noir', 'documents': ['i2', 'i3']}).inputs
  assert one.record['history'] == ['query 0']
  assert one.texts == {'query 0': 'i1, and noir'}
  (one,) = _read({'query': ['i3', 'i1'], 'documents': ['i2', 'i3']}).inputs
  assert one.record['history'] == ['i3', 'i1'] and not one.texts


def test_names_of_texts_are_no_items_of_the_catalogue():
  body = json.dumps({'query': 'noir', 'documents': ['a', 'document 0']})
  knows = {'document 0', 'document 1'}.__contains__
  (one,) = parse.read(body.encode(), knows, LIMITS).inputs
  assert one.record['candidates'] == ['new document 0', 'document 0']


@pytest.mark.parametrize(
  ('document', 'message'),
  [
    (b'\xff{}', 'not UTF-8 (byte 0)'),
    (b'{', 'not JSON'),
    (b'[' * 100_000, 'not JSON'),
    (b'9' * 5000, 'not JSON'),
    (b'{"history": NaN}', 'NaN is no number'),
    (b'[]', 'must be a JSON object'),
    (b'{"history": ["\\ud800"]}', 'half a character'),
    ({'history': [[[[[[]]]]]]}, 'deeper than 6 levels'),
    ({'histroy': []}, "Unknown keys ['histroy']"),
    ({'inputs': []}, '1 to 3 objects'),
    ({'inputs': [{}] * 4}, '1 to 3 objects'),
    ({'top_n': 0}, "'top_n' must be a whole number above 0"),
    ({'top_n': True}, "'top_n' must be a whole number above 0"),
    ({'explain': 1}, "'explain' must be true or false"),
    ({'model': 5}, "'model' must be a text"),
    ({'query': 'x', 'documents': 'y'}, "'documents' must be a list"),
    ({'query': 5, 'documents': []}, "'query' must be a list"),
    ({'query': 'x', 'documents': [' ']}, 'documents[0] must be'),
    ({'query': 'x', 'documents': [{}]}, 'documents[0] must be'),
    ({'query': [1.5], 'documents': []}, 'query[0] must be'),
    ({'query': [True], 'documents': []}, 'query[0] must be'),
  ],
)
def test_what_is_wrong_is_said(document, message):
  assert message in _refusal(document)


_KEYS = st.sampled_from(
  ['history', 'candidates', 'inputs', 'query', 'documents', 'items', 'top_n']
)
_JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda inner: st.lists(inner) | st.dictionaries(_KEYS | st.text(), inner),
)


@hypothesis.settings(
  deadline=None,
  max_examples=50,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(st.binary() | st.dictionaries(_KEYS, _JSON))
def test_whatever_comes_in_is_read_or_refused(document):
  try:
    found = _read(document)
  except requests.Refused as error:
    assert error.status == 400 and str(error)
  else:
    assert found.inputs


def test_lists_that_have_no_incoming_order():
  given = lambda ids: requests.Input({'candidates': ids}, 'A')
  assert not requests.problem(given(['a', 'b']))
  assert 'list of item ids' in requests.problem(given([1]))
  assert 'list of item ids' in requests.problem(given(None))
  assert requests.problem(given(['b', 'a', 'c', 'a'])) == (
    "A: the candidate 'a' stands twice; give it once."
  )
