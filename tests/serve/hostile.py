"""Bodies that are almost right, and others, for Hypothesis."""

import json

import hypothesis
from hypothesis import strategies as st

SETTINGS = hypothesis.settings(
  deadline=None,
  max_examples=1000,
  suppress_health_check=list(hypothesis.HealthCheck),
)
IDS = [f'i{i}' for i in range(9)]
_STRANGE = [
  *('', ' ', '\0', '\ud800', 'ä' * 5000, '<script>alert(1)</script>'),
  *('document 0', 'query 0', 'new document 0', '__proto__', '%s', '🎬'),
]
_NAMES = st.sampled_from(IDS) | st.sampled_from(_STRANGE) | st.text(max_size=9)
_NUMBERS = st.one_of(
  st.integers(),
  st.floats(),
  st.sampled_from([10**400, -1, 0, 1e39, -0.0, True]),
)
_JUNK = st.recursive(
  st.none() | st.booleans() | _NUMBERS | _NAMES,
  lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4)
  ),
  max_leaves=12,
)


def _or_junk(strategy):
  """Returns a strategy that is seldom something else."""
  return st.integers(0, 9).flatmap(lambda x: strategy if x else _JUNK)


_ITEM = st.fixed_dictionaries(
  {
    'item_id': _or_junk(_NAMES),
    'title': _or_junk(st.text(max_size=30)),
    'categories': _or_junk(st.lists(st.text(max_size=9), max_size=3)),
  },
  optional={
    'brand': _JUNK,
    'price': _JUNK,
    'description': _or_junk(st.text(max_size=30)),
    'more': _JUNK,
  },
)
_LIST = st.fixed_dictionaries(
  {
    'history': _or_junk(st.lists(_or_junk(_NAMES), max_size=12)),
    'candidates': _or_junk(
      st.lists(st.sampled_from(IDS), unique=True, max_size=5)
      | st.lists(_or_junk(_NAMES), max_size=5)
    ),
  },
  optional={
    'scores': _or_junk(st.lists(_NUMBERS, max_size=5)),
    'features': _or_junk(st.dictionaries(_NAMES, _JUNK, max_size=2)),
    'items': _or_junk(st.lists(_or_junk(_ITEM), max_size=3)),
  },
)
_DOCUMENTS = st.fixed_dictionaries(
  {
    'query': _or_junk(_NAMES | st.lists(_NAMES, max_size=5)),
    'documents': _or_junk(
      st.lists(
        _or_junk(_NAMES | st.fixed_dictionaries({'text': _NAMES})), max_size=5
      )
    ),
  }
)
_OPTIONS = st.fixed_dictionaries(
  {},
  optional={
    'top_n': _or_junk(st.integers(1, 5)),
    'explain': _or_junk(st.booleans()),
    'stream': _or_junk(st.booleans()),
    'return_documents': _or_junk(st.booleans()),
    'timeout_ms': _or_junk(st.integers(1, 10**6)),
    'model': _or_junk(st.none()),
  },
)


@st.composite
def _request(draw):
  inputs = st.fixed_dictionaries({'inputs': st.lists(_or_junk(_LIST))})
  found = draw(_LIST | inputs | _DOCUMENTS | st.dictionaries(_NAMES, _JUNK))
  return {**found, **draw(_OPTIONS)}


@st.composite
def _bodies(draw):
  body = json.dumps(draw(_or_junk(_request()))).encode()
  if draw(st.integers(0, 9)):
    return body
  # Cut, or with bytes that do not belong there.
  place = draw(st.integers(0, len(body)))
  return body[:place] + draw(st.binary(max_size=8)) + body[place + 1 :]


BODIES = _bodies()


def check(status, content, events=False):
  """Checks what a server answers to a body.

  Args:
    status: of the answer.
    content: its body.
    events: whether it is a stream.
  """
  assert status in (200, 400, 404), (status, content)
  if events:
    first = content.decode().split('\n')[1].removeprefix('data: ')
    content = first.encode()
  found = json.loads(content)
  if status != 200:
    assert set(found['error']) == {'type', 'message'}
    assert found['error']['message']
    return
  for output in found.get('outputs', [found]):
    if 'error' in output:
      assert output['error']['type'] == 'invalid_request', output
      continue
    places = [result['index'] for result in output['results']]
    assert len(set(places)) == len(places)
    assert all(place >= 0 for place in places)
