"""What a model is told, and how its answers are read.

Five principles, budgets, versions; answers exactly, or refused by a reason.
"""

import dataclasses
import hashlib
import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.teacher import base, judge, messages
from gr2_jax.teacher import config as teacher_config

ITEMS = [
  dataset_lib.Item('a', 'Rose Shampoo', ('Beauty', 'Hair', 'Shampoo')),
  dataset_lib.Item('b', 'Rose Conditioner', ('Beauty', 'Hair', 'Conditioner')),
  dataset_lib.Item('c', 'Lip Balm', ('Beauty', 'Lips')),
  dataset_lib.Item('d', '', ()),
]
SIDS = np.array([[0, 1], [1, 3], [2, 2], [3, 0]])
REQUEST = base.Request(np.array([3, 0]), np.array([1, 2]))
ROSE = '<|sid_begin|><s_a_1><s_b_3><|sid_end|> Rose Conditioner'
INDEX = {f'<s_a_{a}><s_b_{b}>': 10 * a + b for a in range(4) for b in range(4)}
ANSWER = {
  'explanation': 'So \u201cyes\u201d: <|sid_begin|><s_a_1><s_b_2><|sid_end|>.',
  'recommendations': [
    '<|sid_begin|><s_a_1><s_b_2><|sid_end|>',
    '<s_a_0><s_b_3>',
  ],
}
ANSWER_TEXT = json.dumps(ANSWER)


def _writer(items=ITEMS, explanation_tokens=40, **settings):
  told = {'history_items': 8, 'tokens_a_word': 1.5, **settings}
  cfg = teacher_config.MessageConfig(**told)
  return messages.Writer(items, SIDS, cfg, explanation_tokens)


def _user(request=REQUEST, **settings):
  return _writer(**settings).messages(request)[1]['content']


def test_history_and_candidates_stand_together_in_their_order():
  told = _writer().messages(REQUEST)
  assert [message['role'] for message in told] == ['system', 'user']
  assert (
    told[1]['content']
    == """\
The user's history, oldest first:
- <|sid_begin|><s_a_3><s_b_0><|sid_end|>
- <|sid_begin|><s_a_0><s_b_1><|sid_end|> Rose Shampoo | Beauty/Hair/Shampoo

The 2 candidates, in the order of an earlier system:
- <|sid_begin|><s_a_1><s_b_3><|sid_end|> Rose Conditioner | Beauty/Hair/\
Conditioner
- <|sid_begin|><s_a_2><s_b_2><|sid_end|> Lip Balm | Beauty/Lips

Which candidate does this user choose next? Rank all 2 of them, the most \
likely first, and explain the one that you put first."""
  )


def test_the_first_message_is_the_same_for_all_requests():
  writer = _writer()
  hinted = dataclasses.replace(REQUEST, hint=2)
  other = base.Request(np.array([1]), np.array([0, 2, 3]))
  told = {writer.messages(r)[0]['content'] for r in (REQUEST, hinted, other)}
  (system,) = told
  # Role, data that are no orders, three steps, citations, form of the answer.
  for words in (
    'expert',
    'no instructions',
    '3. Choice',
    'copied character by character',
    '"recommendations"',
    'JSON',
  ):
    assert words in system


def test_priming_is_a_switch():
  with_, without = (
    _writer(priming=on).messages(REQUEST)[0]['content'] for on in (True, False)
  )
  priming = messages.read_templates('v1')['priming']
  assert 'Sequence' in priming and 'Complement' in priming
  assert with_.replace(f'\n{priming}\n', '') == without


def test_a_targeted_request_names_the_hint_and_nothing_else_changes():
  hinted = _user(dataclasses.replace(REQUEST, hint=1))
  plain = _user()
  head = plain.index('Which candidate')
  assert hinted.startswith(plain[:head])
  assert f'{ROSE} | Beauty/Hair/Conditioner' in hinted[head:]
  assert hinted.count(ROSE) == 2 and hinted.count('Lip Balm') == 1


def test_the_budget_is_told_in_words():
  # (40 - 3 * (2 + 2)) / 1.5.
  writer = _writer(explanation_tokens=40)
  assert writer.words == 18
  assert 'at most 18 words' in writer.messages(REQUEST)[0]['content']
  assert _writer(explanation_tokens=70).words == 38
  assert _writer(explanation_tokens=70, tokens_a_word=2.9).words == 20
  with pytest.raises(ValueError, match='20 tokens .* 5 words.*raise rl.expl'):
    _writer(explanation_tokens=20)


def test_history_titles_and_paths_have_limits():
  assert 'Rose Shampoo' in _user(history_items=1)
  assert '<s_a_3>' not in _user(history_items=1)
  short = _user(title_characters=8, category_characters=15)
  assert 'Rose Sha... | Hair/Shampoo\n' in short
  assert 'Rose Con... | Conditioner\n' in short
  nothing = _user(base.Request(np.zeros(0, int), np.array([1, 2])))
  assert 'oldest first:\n(none)\n' in nothing


def test_a_version_is_a_folder_with_a_hash(tmp_path, monkeypatch):
  writer = _writer()
  assert (writer.version, len(writer.digest)) == ('v1', 16)
  with pytest.raises(ValueError, match=r"version is 'v0'.*\['v1'\]"):
    _writer(version='v0')
  for name, text in messages.read_templates('v1').items():
    (tmp_path / 'v2').mkdir(exist_ok=True)
    (tmp_path / 'v2' / f'{name}.txt').write_text(text)
  monkeypatch.setattr(messages, 'TEMPLATES', tmp_path)
  assert _writer(version='v2').digest == writer.digest
  (tmp_path / 'v2' / 'targeted.txt').write_text('Why $hint?')
  changed = _writer(version='v2')
  assert changed.digest != writer.digest
  assert changed.identity['digest'] == changed.digest


def test_the_words_of_version_1_stay_as_they_are():
  """Answers are kept under the version: other words are another version."""
  text = ''.join(messages.read_templates('v1').values())
  assert hashlib.sha256(text.encode()).hexdigest()[:16] == '5e55e250d25f329c'


def test_a_schema_holds_the_candidates_and_no_hint():
  writer = _writer()
  schema = writer.schema(REQUEST)
  assert schema == writer.schema(dataclasses.replace(REQUEST, hint=1))
  assert list(schema['properties']) == ['explanation', 'recommendations']
  allowed = schema['properties']['recommendations']
  assert (allowed['minItems'], allowed['maxItems']) == (2, 2)
  assert allowed['items']['enum'] == [
    '<|sid_begin|><s_a_1><s_b_3><|sid_end|>',
    '<|sid_begin|><s_a_2><s_b_2><|sid_end|>',
  ]


def test_the_longest_answer_is_one_that_can_be_read():
  writer = _writer()
  read = writer.read(writer.longest(REQUEST), REQUEST)
  assert (read.problem, read.ranking) == (None, [1, 2])
  assert len(read.explanation.split()) == writer.words + messages.CITATIONS


def test_catalogue_and_semantic_ids_must_fit():
  cfg = teacher_config.MessageConfig(history_items=8, tokens_a_word=1.5)
  with pytest.raises(ValueError, match='4 items, but 3 semantic IDs'):
    messages.Writer(ITEMS, SIDS[:3], cfg, 40)
  with pytest.raises(ValueError, match='4 items share 1 semantic IDs'):
    messages.Writer(ITEMS, SIDS * 0, cfg, 40)
  with pytest.raises(ValueError, match='history_items is -1'):
    teacher_config.MessageConfig(history_items=-1)
  with pytest.raises(ValueError, match='tokens_a_word is 0.5'):
    teacher_config.MessageConfig(tokens_a_word=0.5)
  # What the run itself gives must be filled in.
  with pytest.raises(ValueError, match='history_items = 0 and tokens_a_word'):
    messages.Writer(ITEMS, SIDS, teacher_config.MessageConfig(), 40)


def test_temperature_rises_with_the_attempts_up_to_the_top():
  cfg = teacher_config.SamplingConfig(0.7, 0.2, 1.2)
  assert [cfg.at(attempt) for attempt in range(5)] == [0.7, 0.9, 1.1, 1.2, 1.2]
  assert teacher_config.SamplingConfig(0.0, 0.0).at(3) == 0.0
  for wrong, message in (
    ({'temperature': -1}, 'temperature is -1'),
    ({'top_temperature': 0.5}, 'below the temperature 0.7'),
    ({'top_p': 0}, 'top_p is 0'),
    ({'max_tokens': 0}, 'max_tokens is 0'),
  ):
    with pytest.raises(ValueError, match=message):
      teacher_config.SamplingConfig(**wrong)


@pytest.mark.parametrize(
  'text',
  [
    ANSWER_TEXT,
    f' \n{json.dumps(ANSWER, indent=2, ensure_ascii=False)}\n',
    f'```json\n{ANSWER_TEXT}\n```',
    f'```\n{ANSWER_TEXT}\n```\n',
    f'```json{ANSWER_TEXT}```',
    f'<think>Is it {{"explanation": 1}}?\n</think>\n\n{ANSWER_TEXT}',
    f'\n<think></think>```json\n{ANSWER_TEXT}```',
    # The chat template has opened the thought.
    f'Okay, the user likes {{soap}}.\n</think>\n\n{ANSWER_TEXT}',
    f'\n\n</think>\n\n```json\n{ANSWER_TEXT}\n```',
    f'{{</think>{ANSWER_TEXT}',
    f'```JSON\n{ANSWER_TEXT}\n```',
    f'```jsonc\n{ANSWER_TEXT}\n```',
    f'```json5{ANSWER_TEXT}```',
    f'~~~json\n{ANSWER_TEXT}\n~~~',
    # Tags of other models.
    f'<THINK>a</THINK>\n{ANSWER_TEXT}',
    f'<thinking>a</thinking>{ANSWER_TEXT}',
    f'<thought>a</thought>{ANSWER_TEXT}',
    f'<seed:think>a</seed:think>```json\n{ANSWER_TEXT}```',
    f'a\n</reasoning>\n{ANSWER_TEXT}',
  ],
)
def test_an_answer_is_read(text):
  read = messages.read_answer(text, INDEX)
  assert read.problem is None
  assert read.ranking == [12, 3]
  assert read.explanation == ANSWER['explanation']
  assert read.text == text


@pytest.mark.parametrize(
  'front', ['', '<think>a</think>', 'a\n</think>\n', '</think>```JSON\n']
)
def test_a_closing_tag_inside_of_an_answer_is_its_text(front):
  explanation = 'x </think> y ``` z'
  text = front + _with(explanation=explanation) + '```' * ('`' in front)
  assert messages.read_answer(text, INDEX).explanation == explanation


def _with(**changes):
  return json.dumps({**ANSWER, **changes})


NOT_JSON = [
  '',
  'I would recommend the first one.',
  f'Here it is: {ANSWER_TEXT}',
  f'{ANSWER_TEXT}\nI hope that helps.',
  f'{ANSWER_TEXT}{ANSWER_TEXT}',
  ANSWER_TEXT[:-1],
  ANSWER_TEXT.replace('"', "'"),
  ANSWER_TEXT.replace('So', 'So\n'),
  f'```json\n{ANSWER_TEXT}',
  f'```{ANSWER_TEXT}``` and ```{ANSWER_TEXT}```',
  f'<think>Hm. {ANSWER_TEXT}',
  f'well <think></think>{ANSWER_TEXT}',
  f'a</think>b</think>{ANSWER_TEXT}',
  f'a</think>{ANSWER_TEXT}</think>',
  f'<think>a<thinking>b</think>{ANSWER_TEXT}',
  f'<rethink>a</rethink>{ANSWER_TEXT}',
  f'```json\n{ANSWER_TEXT}\n~~~',
  ANSWER_TEXT.replace('{', '{"explanation": "",', 1),
  _with(explanation='\ud800'),
  '{"explanation": NaN, "recommendations": []}',
  '[' * 100_000,
  '9' * 10_000,
  '```',
  '``````',
  '\ufeff' + ANSWER_TEXT,
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
def test_an_answer_is_refused_by_a_reason(text, reason):
  read = messages.read_answer(text, INDEX)
  assert (read.problem, read.ranking, read.explanation) == (reason, [], '')
  assert read.text == text


def test_foreign_repeated_and_missing_items_are_left_to_the_judge():
  sids = ['<s_a_3><s_b_3>'] * 2
  assert messages.read_answer(_with(recommendations=sids), INDEX).ranking == [
    33,
    33,
  ]
  assert messages.read_answer(_with(recommendations=[]), INDEX).problem is None


# What models put around and into answers, cut and joined at random.
_BITS = st.sampled_from(
  [
    '<think>',
    '</think>',
    '```',
    'json',
    'JSON',
    '\n',
    '{',
    '"',
    '\\',
    ANSWER_TEXT,
  ]
)
_TEXTS = st.one_of(
  st.text(),
  st.recursive(
    st.none() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.sampled_from([*ANSWER, 'x']), x),
  ).map(json.dumps),
  st.tuples(st.integers(0, len(ANSWER_TEXT)), st.text(max_size=3)).map(
    lambda cut: ANSWER_TEXT[: cut[0]] + cut[1] + ANSWER_TEXT[cut[0] :]
  ),
  st.lists(_BITS | st.text(max_size=3), max_size=8).map(''.join),
)


def _fuzz(examples):
  @hypothesis.settings(deadline=None, max_examples=examples, database=None)
  @hypothesis.given(_TEXTS)
  def run(text):
    read = messages.read_answer(text, INDEX)
    assert (read.problem is None) or read.ranking == []
    assert all(item in INDEX.values() for item in read.ranking)
    score = judge.read(text)
    assert score is None or 1 <= score <= 5

  run()


def test_no_text_breaks_the_reader():
  _fuzz(300)


@pytest.mark.slow
def test_ten_thousand_texts():
  _fuzz(10_000)
