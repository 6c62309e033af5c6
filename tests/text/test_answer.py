"""Answers are valid JSON, and their tokens are what the format promises."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.text import answer, encoding, semantic_ids
from gr2_jax.text import vocab as vocab_lib


@pytest.fixture(scope='module')
def vocab():
  lines = ['Pattern: recent picks are Drama. Match: "so" it is \\ here.'] * 3
  return vocab_lib.Vocab.train(lines, 300, levels=2, codes=4)


def test_tokens_and_kinds_by_hand(vocab):
  fmt = vocab.answer_format()
  tokens, kind = encoding.encode_answer(vocab, 'so', np.array([[3, 1], [0, 2]]))
  text = vocab.encode('so')
  sid = lambda a, b: [fmt.sid_offset + a, fmt.sid_offset + 4 + b]
  first = [fmt.top, fmt.sid_begin, *sid(3, 1), fmt.sid_end]
  expected = [fmt.open, *text, *first, fmt.mid, *sid(3, 1), fmt.sep, *sid(0, 2)]
  assert tokens == [*expected, fmt.close, fmt.eos]
  assert kind == [0] * (1 + len(text)) + [1] * 13
  assert vocab.decode(tokens) == (
    '{"explanation": "so First: <|sid_begin|><s_a_3><s_b_1><|sid_end|>", '
    '"recommendations": '
    '["<s_a_3><s_b_1>", "<s_a_0><s_b_2>"]}'
  )


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
  parts=st.lists(
    st.one_of(
      st.text(),
      st.sampled_from(
        [*vocab_lib.DELIMITERS, '"', '\\', '\\u12', '<s_a_1>', '<|answer|>']
      ),
    )
  ),
  sids=st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5
  ),
)
def test_every_explanation_gives_valid_json(vocab, parts, sids):
  explanation = ''.join(parts)
  tokens, _ = encoding.encode_answer(vocab, explanation, np.array(sids))
  value = json.loads(vocab.decode(tokens))
  closed = encoding.close_explanation(explanation, np.array(sids[0]))
  assert value['explanation'] == closed
  assert closed.startswith(answer.clean_explanation(explanation))
  assert value['recommendations'] == [*map(semantic_ids.write, sids)]
  fmt = vocab.answer_format()
  for delimiter in (fmt.open, fmt.top, fmt.mid, fmt.close, fmt.eos):
    assert tokens.count(delimiter) == 1
  assert vocab.encode(vocab.decode(tokens)) + [fmt.eos] == tokens or (
    # What an explanation spells is text in the answer, and a token only where
    # all added tokens are asked for.
    '<|answer|>' in explanation or answer.TOP in explanation
  )


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(data=st.data())
def test_explanations_of_safe_tokens_are_valid_json(vocab, data):
  fmt = vocab.answer_format()
  safe = sorted(set(range(vocab.text_size)) - set(fmt.unsafe))
  words = st.sampled_from([*safe, vocab.sid_begin, fmt.sid_offset])
  explanation = data.draw(st.lists(words))
  tokens = [fmt.open, *explanation, fmt.top, fmt.mid, fmt.sid_offset, fmt.close]
  assert json.loads(vocab.decode(tokens))['recommendations'] == ['<s_a_0>']


def test_unsafe_are_exactly_the_tokens_that_break_the_string(vocab):
  fmt = vocab.answer_format()
  for token in range(vocab.text_size):
    if token in (vocab.pad, vocab.bos, vocab.eos):
      continue
    text = vocab.decode([fmt.open, token, fmt.mid, fmt.sid_offset, fmt.close])
    if token in fmt.unsafe:
      with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    else:
      json.loads(text)


def test_no_words_are_an_explanation_too(vocab):
  tokens, kind = encoding.encode_answer(vocab, '', np.array([[3, 1]]))
  assert tokens[1] == vocab.answer_format().top and kind[:2] == [0, 1]
  value = json.loads(vocab.decode(tokens))
  assert (
    value['explanation'] == ' First: <|sid_begin|><s_a_3><s_b_1><|sid_end|>'
  )


def test_an_empty_list_is_refused(vocab):
  with pytest.raises(ValueError, match='at least one'):
    encoding.encode_answer(vocab, 'x', np.zeros((0, 2), int))


def test_the_format_is_hashable(vocab):
  assert hash(vocab.answer_format()) == hash(vocab.answer_format())
