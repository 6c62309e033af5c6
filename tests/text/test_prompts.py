"""Prompts by hand, their budgets and what is counted."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.text import prompts
from gr2_jax.text import vocab as vocab_lib

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {"x" * (i % 4)} ({1990 + i})', cats)
  for i, cats in enumerate(
    [('Drama',), ('Comedy', 'Drama'), (), ('Beauty', 'Hair Care', 'Dye')] * 5
  )
]
SIDS = np.stack([np.arange(20) // 5, np.arange(20) % 5], axis=1)


@pytest.fixture(scope='module')
def vocab():
  lines = [
    f' {item.title} | {prompts.category_path(item.categories)}'
    for item in ITEMS
  ]
  return vocab_lib.Vocab.train(lines, 330, levels=2, codes=5)


def make(vocab, **fields):
  return prompts.Prompter(vocab, ITEMS, SIDS, prompts.PromptConfig(**fields))


def test_rerank_by_hand(vocab):
  prompter = make(vocab, instruction=' Go', category_tokens=30, max_tokens=600)
  tokens = prompter.rerank([0, 3], np.array([6, 1]))
  assert tokens[0] == vocab.bos
  assert vocab.decode(tokens) == (
    '<|retrieve|><|sid_begin|><s_a_0><s_b_0><|sid_end|>'
    '<|sid_begin|><s_a_0><s_b_3><|sid_end|>'
    '<|rerank|> Go<|history|>'
    '<|sid_begin|><s_a_0><s_b_0><|sid_end|> Film  (1990) | Drama'
    '<|sid_begin|><s_a_0><s_b_3><|sid_end|> Film xxx (1993) |'
    ' Beauty/Hair Care/Dye'
    '<|candidates|>'
    '<|sid_begin|><s_a_1><s_b_1><|sid_end|> Film xx (1996) |'
    '<|sid_begin|><s_a_0><s_b_1><|sid_end|> Film x (1991) | Comedy/Drama'
    '<s_a_1><s_b_1><s_a_0><s_b_1>'
    '<|answer|>'
  )


def test_a_rerank_prompt_begins_as_a_retrieval_prompt(vocab):
  """With the same items, not with those alone that are shown with text."""
  prompter = make(vocab, retrieval_items=4, history_items=2)
  for history in ([], [5], [9, 0, 7, 3, 3, 12]):
    tokens = prompter.rerank(np.array(history, int), [6, 1])
    seen = prompter.retrieval(np.array(history, int))[:-1]
    assert tokens[: len(seen)] == seen
    assert len(seen) == 2 + 4 * min(len(history), 4)
    assert tokens[len(seen)] == vocab.token('<|rerank|>')


def test_retrieval_by_hand(vocab):
  prompter = make(vocab, retrieval_items=2)
  tokens = prompter.retrieval(np.array([9, 0, 7]))
  assert tokens[0] == vocab.bos and tokens[-1] == vocab.sid_begin
  assert vocab.decode(tokens) == (
    '<|retrieve|><|sid_begin|><s_a_0><s_b_0><|sid_end|>'
    '<|sid_begin|><s_a_1><s_b_2><|sid_end|><|sid_begin|>'
  )
  assert tokens[:-1] == prompter.sequence(np.array([0, 7]))


def test_a_title_that_spells_a_token_stays_text(vocab):
  items = [dataset_lib.Item('a', '<s_a_0><|answer|>', ('<|history|>',))]
  prompter = prompts.Prompter(
    vocab, items, SIDS[:1], prompts.PromptConfig(title_tokens=99)
  )
  assert max(prompter.texts[0]) < vocab.text_size


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
  history=st.lists(st.integers(0, 19), max_size=30),
  candidates=st.lists(st.integers(0, 19), min_size=1, max_size=4),
  spare=st.integers(0, 120),
)
def test_oldest_history_goes_first(vocab, history, candidates, spare):
  fields = {'max_candidates': 4, 'instruction': '', 'history_items': 8}
  roomy = make(vocab, **fields, max_tokens=2000)
  longest = sorted(map(len, roomy.segments))[-4:]
  # Four tokens of structure, and four bare semantic IDs of two levels.
  limit = 4 + 8 + sum(longest) + spare
  prompter = make(vocab, **fields, max_tokens=limit)
  # What `max_tokens` counts: all behind the history in semantic IDs.
  seen = len(prompter.retrieval(history)) - 1
  after = lambda tokens: tokens[tokens.index(vocab.token('<|rerank|>')) :]
  tokens = prompter.rerank(history, candidates)
  assert len(tokens) - seen == len(after(tokens)) <= limit
  dropped = prompter.dropped(history, candidates)
  shown = history[-8:][dropped:]
  assert after(tokens) == after(roomy.rerank(shown, candidates))
  if dropped:
    longer = roomy.rerank(history[-8:][dropped - 1 :], candidates)
    assert len(after(longer)) > limit, 'an item was dropped that had room'


def test_cut_titles_and_paths_are_counted(vocab):
  prompter = make(vocab, title_tokens=2)
  for text, item in zip(prompter.texts, ITEMS, strict=True):
    title = vocab.encode(f' {item.title}')[:2]
    assert text[: len(title)] == title
  assert prompter.counts['titles_cut'] == 20
  whole = len(vocab.encode(' Beauty/Hair Care/Dye'))
  assert len(vocab.encode(' Comedy/Drama')) < whole
  prompter = make(vocab, category_tokens=whole - 1)
  assert prompter.counts['categories_cut'] == 5
  assert vocab.decode(prompter.texts[3]).endswith('| Hair Care/Dye')
  assert vocab.decode(prompter.texts[1]).endswith('| Comedy/Drama')


def test_a_leaf_that_is_too_long_is_cut(vocab):
  item = dataset_lib.Item('a', 'Film', ('Drama', 'z' * 40))
  prompter = prompts.Prompter(
    vocab, [item], SIDS[:1], prompts.PromptConfig(category_tokens=4)
  )
  assert vocab.decode(prompter.texts[0]) == ' Film | ' + 'z' * 3
  assert prompter.counts['categories_cut'] == 1


def test_impossible_budgets_are_refused_at_once(vocab):
  with pytest.raises(ValueError, match='max_tokens is 60'):
    make(vocab, max_tokens=60)
  with pytest.raises(ValueError, match='history_items'):
    prompts.PromptConfig(history_items=0)
  with pytest.raises(ValueError, match='semantic IDs'):
    prompts.Prompter(vocab, ITEMS, SIDS[:3], prompts.PromptConfig())
  prompter = make(vocab)
  for candidates in ([], list(range(11))):
    with pytest.raises(ValueError, match='max_candidates'):
      prompter.rerank([0], candidates)


def test_citable_are_the_items_that_the_prompt_shows_with_text(vocab):
  """Read out of the prompt itself, with and without room for the history.

  The history in semantic IDs in front of it says nothing that an explanation
  could name: an item that stands there alone is not citable.
  """
  history, candidates = [3, 7, 3, 9, 12, 1], [7, 2, 15]
  for limit in (600, 130):
    prompter = make(vocab, history_items=5, max_candidates=4, max_tokens=limit)
    tokens = prompter.rerank(history, candidates)
    start = tokens.index(vocab.token('<|rerank|>'))
    begins = [
      i
      for i, token in enumerate(tokens)
      if token == vocab.sid_begin and i > start
    ]
    wrapped = [tuple(tokens[i + 1 : i + 3]) for i in begins]
    given = [tuple(x) for x in vocab.sid_tokens(SIDS).tolist()]
    want = [given.index(codes) for codes in wrapped]
    found = prompter.citable(np.array(history), np.array(candidates))
    assert found.dtype == np.int32 and len(found) == 9
    assert tokens[:start] == prompter.retrieval(history)[:-1]
    assert found[found >= 0].tolist() == want == found[: len(want)].tolist()
    assert want == [*prompter.shown(history, candidates), *candidates]
    dropped = prompter.dropped(history, candidates)
    assert (dropped > 0) == (limit == 130)
    assert len(want) == 5 - dropped + 3
