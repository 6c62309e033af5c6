"""Semantic IDs as text: what is written is found again."""

from gr2_jax.text import semantic_ids
from gr2_jax.text import vocab as vocab_lib
from tests.teacher.scripted import SIDS, cite


def test_items_are_found_in_their_order():
  find = semantic_ids.Citations(SIDS).find
  assert find(f'{cite(3)}{cite(3)} and, twice: {cite(0)}!') == [3, 3, 0]
  assert find('') == find('<|sid_begin|><|sid_end|>') == []
  # Well-formed, but nobody's: code 9, and one or three levels.
  for nobody in ('<s_a_0><s_b_9>', '<s_a_0>', '<s_a_0><s_b_0><s_c_0>'):
    assert find(f'<|sid_begin|>{nobody}<|sid_end|>') == [None]
  # An opening that nothing closes hides nothing.
  assert find(f'<|sid_begin|><s_a_1> {cite(2)}') == [2]


def test_they_are_what_the_vocabulary_writes():
  vocab = vocab_lib.Vocab.train(['so it is'], 300, levels=2, codes=5)
  rows = vocab.sid_tokens(SIDS).tolist()
  written = ' '.join(
    vocab.decode([vocab.sid_begin, *row, vocab.sid_end]) for row in rows
  )
  assert semantic_ids.Citations(SIDS).find(written) == list(range(24))


def test_titles_stand_for_what_names_an_item():
  found = semantic_ids.Citations(SIDS)
  nobody = '<|sid_begin|><s_a_9><s_b_9><|sid_end|>'
  text = f'As {cite(3)}{nobody}, so {cite(0)} and {cite(3)}. <s_a_0><s_b_0>'
  assert found.named(text) == {cite(3): 3, cite(0): 0}
  # A title that spells a citation is a title.
  titles = {cite(3): 'Alien (1979)', cite(0): cite(3)}
  assert semantic_ids.with_titles(text, titles) == (
    f'As Alien (1979){nobody}, so {cite(3)} and Alien (1979). <s_a_0><s_b_0>'
  )
  assert semantic_ids.with_titles('', titles) == ''
  assert ''.join(semantic_ids.split(text)) == text
  assert semantic_ids.split(text)[1::2] == [cite(3), nobody, cite(0), cite(3)]


def test_bare_and_wrapped():
  bare = semantic_ids.write([3, 0, 11])
  assert bare == '<s_a_3><s_b_0><s_c_11>'
  wrapped = '<|sid_begin|><s_a_3><s_b_0><s_c_11><|sid_end|>'
  assert semantic_ids.wrap(bare) == wrapped
  assert semantic_ids.unwrap(wrapped) == semantic_ids.unwrap(bare) == bare
  half = f'{semantic_ids.BEGIN}{bare}'
  assert semantic_ids.unwrap(half) == half
  text = f'{wrapped} {half} {bare} <s_a_x>'
  assert semantic_ids.mask(text, '*') == '* * * <s_a_x>'
