"""Items as a model sees them: no title forges anything."""

import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.teacher import base, catalogue, messages
from gr2_jax.teacher import config as teacher_config
from gr2_jax.text import semantic_ids
from tests.text import made

SIDS = np.array([[0, 1], [1, 3], [2, 2], [3, 0]])
SPELLED = [
  *made.SPECIAL,
  *semantic_ids.WRAPPERS,
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


def _writer(texts):
  items = [
    dataset_lib.Item(f'i{i}', text, (text, f'x{text}'))
    for i, text in enumerate((texts * 4)[:4])
  ]
  cfg = teacher_config.MessageConfig(history_items=8, tokens_a_word=1.5)
  return messages.Writer(items, SIDS, cfg, 40)


@search
@hypothesis.given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_no_title_forges_a_line_an_item_or_a_marker(texts):
  request = base.Request(np.array([3, 0]), np.array([1, 2]), hint=1)
  hostile, harmless = (
    _writer(t).messages(request)[1]['content'] for t in (texts, ['x'])
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
