"""Bodies of chat completions: replies, or faults that say what is wrong."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.teacher import protocol


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
  found = protocol.Reply(name, '', protocol.STOP, 0, 0)
  assert protocol.is_from(found, 'org/m-1', 'alias') == same


def test_no_alias_is_no_name():
  assert not protocol.is_from(
    protocol.Reply('', '', protocol.STOP, 0, 0), 'm', ''
  )


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
  with pytest.raises(protocol.Fault, match=words):
    protocol.read_reply(json.dumps(value).encode())


@pytest.mark.parametrize('number', [True, -1, 2.5, '7', None, 2**60])
def test_impossible_counts_are_none(number):
  body = json.dumps(_completion(usage={'prompt_tokens': number}))
  found = protocol.read_reply(body.encode())
  assert found.prompt_tokens is None and found.completion_tokens is None


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_fault(body):
  with pytest.raises(protocol.Fault):
    protocol.read_reply(body)


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
      found = protocol.read_reply(json.dumps(value).encode())
    except protocol.Fault:
      return
    assert found.end in (
      protocol.STOP,
      protocol.LENGTH,
      protocol.REFUSED,
      protocol.THOUGHT,
    )
    found.text.encode()

  run()


def test_no_completion_breaks_the_reader():
  _fuzz(300)


@pytest.mark.slow
def test_ten_thousand_completions():
  _fuzz(10_000)


def test_deep_json_is_a_fault():
  with pytest.raises(protocol.Fault, match='not whole JSON'):
    protocol.read_reply(b'[' * 200_000)


def test_a_huge_number_is_a_fault():
  with pytest.raises(protocol.Fault, match='not whole JSON'):
    protocol.read_reply(b'{"created": ' + b'9' * 5000 + b'}')


def test_half_a_surrogate_pair_is_replaced():
  text = r'"a\ud83d b\ud83d\ude00"'
  choices = f'[{{"message": {{"content": {text}}}}}]'
  found = protocol.read_reply(
    b'{"model": "m", "choices": %b}' % choices.encode()
  )
  assert found.text == 'a\ufffd b\U0001f600'
