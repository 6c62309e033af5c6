"""No text of the data forges a token, whatever it spells."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.text import prompts, semantic_ids, tasks
from gr2_jax.text import vocab as vocab_lib
from tests.text import made

# Whole tokens, and what could become one beside something else.
SPELLED = [
  *vocab_lib.DELIMITERS,
  *semantic_ids.WRAPPERS,
  *(f'<|{name}|>' for name in (*vocab_lib.TASKS, *vocab_lib.ROLES)),
  *made.SPECIAL,
  '<think>',
  '</think>',
  '<s>',
  '</s>',
  '<unk>',
  '<pad>',
  '[PAD]',
  '<0x0A>',
  '<s_a_1>',
  '<s_b_3>',
  '<s_a_0><s_b_1>',
  '<s_',
  'a_1>',
  '<|',
  'sid_end',
  '|>',
  '{"explanation"',
  ': "',
  '"',
  ']}',
  '<|gr2_unused_300|>',
  '\u0120\u010a',
  '\u2581',
  '\x00',
  '<\u0338',
  ' ',
]
TEXTS = st.lists(st.one_of(st.sampled_from(SPELLED), st.text(max_size=4))).map(
  ''.join
)
KINDS = ['sentencepiece', *made.KINDS]
SIDS = np.array([[0, 1], [1, 3], [2, 2], [3, 0]])
CFG = prompts.PromptConfig(
  title_tokens=400, category_tokens=400, max_tokens=20_000, max_candidates=4
)
search = hypothesis.settings(deadline=None, max_examples=60)


@pytest.fixture(scope='module', params=KINDS)
def vocab(request):
  if request.param != 'sentencepiece':
    pieces = made.pretrained(request.param)
    return vocab_lib.Vocab.pretrained(pieces, levels=2, codes=4)
  # The corpus itself is hostile, so that pieces may spell whole tokens.
  return vocab_lib.Vocab.train(made.LINES + SPELLED * 20, 450, 2, 4)


@pytest.fixture(scope='module')
def special(vocab):
  """Every id that is no text: added ones, and the tokenizer's own."""
  found = {*range(vocab.text_size, vocab.size), vocab.bos, vocab.eos, vocab.pad}
  found |= {i for i, b in enumerate(vocab._pieces.bytes) if not b}
  if vocab._pieces.kind == 'pretrained':
    own = vocab.tokenizer().get_added_tokens_decoder()
    found |= set(own)
    assert len(own) > 15 + 8
  return found


def _items(texts):
  return [
    dataset_lib.Item(f'i{i}', text, (text, 'x'), text, None, description=text)
    for i, text in enumerate(itertools.islice(itertools.cycle(texts), 4))
  ]


def _structure(tokens, special):
  return [t for t in np.asarray(tokens).tolist() if t in special]


@search
@hypothesis.given(text=TEXTS)
def test_a_title_holds_no_special_token(vocab, special, text):
  assert special.isdisjoint(vocab.encode(f' {text}', added='none'))
  cited = vocab.encode(text, added='sids')
  allowed = {vocab.sid_begin, vocab.sid_end}
  allowed |= set(range(vocab.sid_offset, vocab.sid_offset + 8))
  assert special.isdisjoint(set(cited) - allowed)


@search
@hypothesis.given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_whole_prompts_have_the_structure_of_harmless_ones(
  vocab, special, texts
):
  made_of = [
    prompts.Prompter(vocab, _items(t), SIDS, CFG) for t in (texts, ['x'])
  ]
  for write in (
    lambda p: p.rerank([0, 1, 3], [2, 0, 1]),
    lambda p: p.retrieval([3, 1]),
  ):
    hostile, harmless = (
      _structure(write(prompter), special) for prompter in made_of
    )
    assert hostile == harmless


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_so_do_the_examples_of_mid_training(vocab, special, texts):
  sequences = {'u': [0, 1, 2, 3, 1, 2], 'v': [2, 0, 1, 3, 0]}
  cfg = tasks.TaskConfig(1, 2, description_tokens=500)

  def write(texts):
    dataset = dataset_lib.from_sequences('test', _items(texts), sequences)
    splits = splits_lib.make(dataset, splits_lib.SplitConfig())
    return tasks.make(
      dataset, splits, SIDS, vocab, prompt=CFG, length=4000, cfg=cfg
    )

  hostile, harmless = write(texts), write(['x'])
  for name in ('item_text', 'persona', 'next_item'):
    for one, other in zip(hostile[name], harmless[name], strict=True):
      assert _structure(one['tokens'], special) == (
        _structure(other['tokens'], special)
      )
  head = [vocab.bos, vocab.token('<|text|>')]
  for example in hostile['general_text']:
    assert _structure(example['tokens'], special) == [*head, vocab.eos]
