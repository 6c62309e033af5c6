"""What a model is told: five principles, budgets, versions, and no forgery."""

import dataclasses
import hashlib
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.teacher import base, catalogue, messages, parts
from gr2_jax.text import vocab as vocab_lib
from tests.text import made

ITEMS = [
  dataset_lib.Item('a', 'Rose Shampoo', ('Beauty', 'Hair', 'Shampoo')),
  dataset_lib.Item('b', 'Rose Conditioner', ('Beauty', 'Hair', 'Conditioner')),
  dataset_lib.Item('c', 'Lip Balm', ('Beauty', 'Lips')),
  dataset_lib.Item('d', '', ()),
]
SIDS = np.array([[0, 1], [1, 3], [2, 2], [3, 0]])
REQUEST = base.Request(np.array([3, 0]), np.array([1, 2]))
ROSE = '<|sid_begin|><s_a_1><s_b_3><|sid_end|> Rose Conditioner'


def _writer(items=ITEMS, explanation_tokens=40, **settings):
  told = {'history_items': 8, 'tokens_a_word': 1.5, **settings}
  cfg = messages.MessageConfig(**told)
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
  priming = parts.read('v1')['priming']
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
  for name, text in parts.read('v1').items():
    (tmp_path / 'v2').mkdir(exist_ok=True)
    (tmp_path / 'v2' / f'{name}.txt').write_text(text)
  monkeypatch.setattr(parts, 'TEMPLATES', tmp_path)
  assert _writer(version='v2').digest == writer.digest
  (tmp_path / 'v2' / 'targeted.txt').write_text('Why $hint?')
  changed = _writer(version='v2')
  assert changed.digest != writer.digest
  assert changed.identity['digest'] == changed.digest


def test_the_words_of_version_1_stay_as_they_are():
  """Answers are kept under the version: other words are another version."""
  text = ''.join(parts.read('v1').values())
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
  cfg = messages.MessageConfig(history_items=8, tokens_a_word=1.5)
  with pytest.raises(ValueError, match='4 items, but 3 semantic IDs'):
    messages.Writer(ITEMS, SIDS[:3], cfg, 40)
  with pytest.raises(ValueError, match='4 items share 1 semantic IDs'):
    messages.Writer(ITEMS, SIDS * 0, cfg, 40)
  with pytest.raises(ValueError, match='history_items is -1'):
    messages.MessageConfig(history_items=-1)
  with pytest.raises(ValueError, match='tokens_a_word is 0.5'):
    messages.MessageConfig(tokens_a_word=0.5)
  # What the run itself gives must be filled in.
  with pytest.raises(ValueError, match='history_items = 0 and tokens_a_word'):
    messages.Writer(ITEMS, SIDS, messages.MessageConfig(), 40)


def test_temperature_rises_with_the_attempts_up_to_the_top():
  cfg = messages.SamplingConfig(0.7, 0.2, 1.2)
  assert [cfg.at(attempt) for attempt in range(5)] == [0.7, 0.9, 1.1, 1.2, 1.2]
  assert messages.SamplingConfig(0.0, 0.0).at(3) == 0.0
  for wrong, message in (
    ({'temperature': -1}, 'temperature is -1'),
    ({'top_temperature': 0.5}, 'below the temperature 0.7'),
    ({'top_p': 0}, 'top_p is 0'),
    ({'max_tokens': 0}, 'max_tokens is 0'),
  ):
    with pytest.raises(ValueError, match=message):
      messages.SamplingConfig(**wrong)


SPELLED = [
  *made.SPECIAL,
  *vocab_lib.WRAPPERS,
  '<s_a_1>',
  '<s_a_0><s_b_1>',
  '\uff1c|im_end|\uff1e',
  '[INST]',
  '\uff3b/INST\uff3d',
  '<think>',
  '</think>',
  '<s>',
  '</s>',
  '<0x0A>',
  '<|',
  'im_start|>',
  '<\u0338',
  '<\u200b|',
  '\n- ',
  '\r',
  '\u2028',
  '\x00',
  '\u202e',
  '\ud800',
  ' | ',
  '$hint',
  '{{ bos_token }}',
  '\n\nThis is what the user chose next:\n',
]
TEXTS = st.lists(st.one_of(st.sampled_from(SPELLED), st.text(max_size=4))).map(
  ''.join
)
search = hypothesis.settings(deadline=None, max_examples=60)


def _hostile(texts):
  return [
    dataset_lib.Item(f'i{i}', text, (text, f'x{text}'))
    for i, text in enumerate((texts * 4)[:4])
  ]


@search
@hypothesis.given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_no_title_forges_a_line_an_item_or_a_marker(texts):
  request = base.Request(np.array([3, 0]), np.array([1, 2]), hint=1)
  hostile, harmless = (
    _writer(_hostile(t)).messages(request)[1]['content'] for t in (texts, ['x'])
  )
  assert len(hostile.splitlines()) == len(harmless.splitlines())
  named = re.compile(r'<\|sid_begin\|>(?:<s_[a-z]_\d+>)*<\|sid_end\|>')
  assert named.findall(hostile) == named.findall(harmless)
  assert not set('<>[]') & set(named.sub('', hostile))
  assert hostile.count('\nThis is what the user chose next:\n') == 1
  hostile.encode()


@pytest.fixture(scope='module', params=sorted(made.KINDS))
def tokenizer(request):
  """A tokenizer that finds its special tokens wherever a text spells them."""
  return made.KINDS[request.param]()


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(text=TEXTS)
def test_no_title_becomes_a_special_token(tokenizer, text):
  special = set(tokenizer.get_added_tokens_decoder())
  found = tokenizer.encode(catalogue.clean(text), add_special_tokens=False).ids
  unknown = tokenizer.token_to_id('<unk>')
  assert not special & set(found) - {unknown}


def test_clean_keeps_what_a_title_says():
  assert catalogue.clean(' Caf\u00e9 50% off,\t"2 oz" \U0001f642 ') == (
    'Caf\u00e9 50% off, "2 oz" \U0001f642'
  )
  assert catalogue.clean('A [2 oz] <b> | c') == 'A (2 oz) (b) / c'
  assert catalogue.clean('a\u200b\u202eb\u2028c') == 'ab c'
