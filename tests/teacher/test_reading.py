"""Texts of language models: read exactly, or refused by a reason."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax.teacher import judge, reading

INDEX = {f'<s_a_{a}><s_b_{b}>': 10 * a + b for a in range(4) for b in range(4)}
GOOD = {
  'explanation': 'So \u201cyes\u201d: <|sid_begin|><s_a_1><s_b_2><|sid_end|>.',
  'recommendations': [
    '<|sid_begin|><s_a_1><s_b_2><|sid_end|>',
    '<s_a_0><s_b_3>',
  ],
}
TEXT = json.dumps(GOOD)


@pytest.mark.parametrize(
  'text',
  [
    TEXT,
    f' \n{json.dumps(GOOD, indent=2, ensure_ascii=False)}\n',
    f'```json\n{TEXT}\n```',
    f'```\n{TEXT}\n```\n',
    f'```json{TEXT}```',
    f'<think>Is it {{"explanation": 1}}?\n</think>\n\n{TEXT}',
    f'\n<think></think>```json\n{TEXT}```',
    # The chat template has opened the thought.
    f'Okay, the user likes {{soap}}.\n</think>\n\n{TEXT}',
    f'\n\n</think>\n\n```json\n{TEXT}\n```',
    f'{{</think>{TEXT}',
    f'```JSON\n{TEXT}\n```',
    f'```jsonc\n{TEXT}\n```',
    f'```json5{TEXT}```',
    f'~~~json\n{TEXT}\n~~~',
    # Tags of other models.
    f'<THINK>a</THINK>\n{TEXT}',
    f'<thinking>a</thinking>{TEXT}',
    f'<thought>a</thought>{TEXT}',
    f'<seed:think>a</seed:think>```json\n{TEXT}```',
    f'a\n</reasoning>\n{TEXT}',
  ],
)
def test_it_is_read(text):
  read = reading.read(text, INDEX)
  assert read.problem is None
  assert read.ranking == [12, 3]
  assert read.explanation == GOOD['explanation']
  assert read.text == text


@pytest.mark.parametrize(
  'front', ['', '<think>a</think>', 'a\n</think>\n', '</think>```JSON\n']
)
def test_a_closing_tag_inside_of_an_answer_is_its_text(front):
  explanation = 'x </think> y ``` z'
  text = front + _with(explanation=explanation) + '```' * ('`' in front)
  assert reading.read(text, INDEX).explanation == explanation


def _with(**changes):
  return json.dumps({**GOOD, **changes})


NOT_JSON = [
  '',
  'I would recommend the first one.',
  f'Here it is: {TEXT}',
  f'{TEXT}\nI hope that helps.',
  f'{TEXT}{TEXT}',
  TEXT[:-1],
  TEXT.replace('"', "'"),
  TEXT.replace('So', 'So\n'),
  f'```json\n{TEXT}',
  f'```{TEXT}``` and ```{TEXT}```',
  f'<think>Hm. {TEXT}',
  f'well <think></think>{TEXT}',
  f'a</think>b</think>{TEXT}',
  f'a</think>{TEXT}</think>',
  f'<think>a<thinking>b</think>{TEXT}',
  f'<rethink>a</rethink>{TEXT}',
  f'```json\n{TEXT}\n~~~',
  TEXT.replace('{', '{"explanation": "",', 1),
  _with(explanation='\ud800'),
  '{"explanation": NaN, "recommendations": []}',
  '[' * 100_000,
  '9' * 10_000,
  '```',
  '``````',
  '\ufeff' + TEXT,
]
WRONG_KEYS = [
  '[]',
  '"x"',
  'null',
  '{}',
  json.dumps({'explanation': ''}),
  _with(confidence=0.9),
  _with(explanation=None),
  _with(explanation=['x']),
  _with(recommendations='<s_a_0><s_b_3>'),
  _with(recommendations=[3]),
  _with(recommendations=[['<s_a_0><s_b_3>']]),
  json.dumps({'Explanation': '', 'recommendations': []}),
]
UNKNOWN = [
  '',
  'Rose Shampoo',
  '<s_a_0>',
  '<s_a_0><s_b_4>',
  '<s_b_3><s_a_0>',
  '<s_a_00><s_b_3>',
  '<s_a_0> <s_b_3>',
  ' <s_a_0><s_b_3>',
  '<S_A_0><S_B_3>',
  '<s_a_0><s_b_3><|sid_end|>',
  '<|sid_begin|><s_a_0><s_b_3>',
  '<|sid_begin|><|sid_begin|><s_a_0><s_b_3><|sid_end|><|sid_end|>',
  '<|sid_end|>',
  f'<s_a_{"9" * 5000}><s_b_3>',
]


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    *((text, 'not_json') for text in NOT_JSON),
    *((text, 'wrong_keys') for text in WRONG_KEYS),
    *((_with(recommendations=[sid]), 'unknown_item') for sid in UNKNOWN),
  ],
  ids=lambda text: text[:30],
)
def test_it_is_refused_by_a_reason(text, reason):
  read = reading.read(text, INDEX)
  assert (read.problem, read.ranking, read.explanation) == (reason, [], '')
  assert read.text == text


def test_foreign_repeated_and_missing_items_are_left_to_the_judge():
  sids = ['<s_a_3><s_b_3>'] * 2
  assert reading.read(_with(recommendations=sids), INDEX).ranking == [33, 33]
  assert reading.read(_with(recommendations=[]), INDEX).problem is None


# What models put around and into answers, cut and joined at random.
_BITS = st.sampled_from(
  ['<think>', '</think>', '```', 'json', 'JSON', '\n', '{', '"', '\\', TEXT]
)
_TEXTS = st.one_of(
  st.text(),
  st.recursive(
    st.none() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.sampled_from([*GOOD, 'x']), x),
  ).map(json.dumps),
  st.tuples(st.integers(0, len(TEXT)), st.text(max_size=3)).map(
    lambda cut: TEXT[: cut[0]] + cut[1] + TEXT[cut[0] :]
  ),
  st.lists(_BITS | st.text(max_size=3), max_size=8).map(''.join),
)


def _fuzz(examples):
  @hypothesis.settings(deadline=None, max_examples=examples, database=None)
  @hypothesis.given(_TEXTS)
  def run(text):
    read = reading.read(text, INDEX)
    assert (read.problem is None) or read.ranking == []
    assert all(item in INDEX.values() for item in read.ranking)
    score = judge.read(text)
    assert score is None or 1 <= score <= 5

  run()


def test_no_text_breaks_it():
  _fuzz(300)


@pytest.mark.slow
def test_ten_thousand_texts():
  _fuzz(10_000)
