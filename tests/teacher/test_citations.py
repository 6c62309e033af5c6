"""Semantic IDs in texts, by hand."""

from gr2_jax.teacher import citations
from tests.teacher.scripted import SIDS, cite


def test_items_are_found_in_their_order():
  find = citations.Citations(SIDS).find
  assert find(f'{cite(3)}{cite(3)} and, twice: {cite(0)}!') == [3, 3, 0]
  assert find('') == find('<|sid_begin|><|sid_end|>') == []
  # Well-formed, but nobody's: code 9, and one or three levels.
  for nobody in ('<s_a_0><s_b_9>', '<s_a_0>', '<s_a_0><s_b_0><s_c_0>'):
    assert find(f'<|sid_begin|>{nobody}<|sid_end|>') == [None]
  # An opening that nothing closes hides nothing.
  assert find(f'<|sid_begin|><s_a_1> {cite(2)}') == [2]


def test_they_are_what_the_vocabulary_writes(world):
  written = ' '.join(world.vocab.sid_text(sid, wrapped=True) for sid in SIDS)
  assert citations.Citations(SIDS).find(written) == list(range(24))


def test_titles_stand_for_what_names_an_item():
  found = citations.Citations(SIDS)
  nobody = '<|sid_begin|><s_a_9><s_b_9><|sid_end|>'
  text = f'As {cite(3)}{nobody}, so {cite(0)} and {cite(3)}. <s_a_0><s_b_0>'
  assert found.named(text) == {cite(3): 3, cite(0): 0}
  # A title that spells a citation is a title.
  titles = {cite(3): 'Alien (1979)', cite(0): cite(3)}
  assert citations.with_titles(text, titles) == (
    f'As Alien (1979){nobody}, so {cite(3)} and Alien (1979). <s_a_0><s_b_0>'
  )
  assert citations.with_titles('', titles) == ''
  assert ''.join(citations.split(text)) == text
  assert citations.split(text)[1::2] == [cite(3), nobody, cite(0), cite(3)]


def test_words():
  text = f"It's {cite(3)}, or <s_a_1><s_b_1>; NOT é<|sid_begin|><s_a_0>."
  assert citations.words(text) == [
    *('it', 's', '§', 'or', '§', 'not', 'é', '§')
  ]
  assert citations.words('...') == []
