"""Near duplicates and measures of explanations.

By hand, and near duplicates and n-grams against their definitions.
"""

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax.teacher import explanations
from gr2_jax.text import semantic_ids
from tests.teacher.scripted import SIDS, cite

TEXTS = st.lists(
  st.lists(st.sampled_from('abcd'), max_size=9).map(' '.join), max_size=8
)
CITATIONS = semantic_ids.Citations(SIDS)
NOBODY = '<|sid_begin|><s_a_0><s_b_9><|sid_end|>'


def test_words():
  text = f"It's {cite(3)}, or <s_a_1><s_b_1>; NOT é<|sid_begin|><s_a_0>."
  assert explanations.words(text) == [
    *('it', 's', '§', 'or', '§', 'not', 'é', '§')
  ]
  assert explanations.words('...') == []


def test_shingles():
  assert explanations.shingles(f'A b {cite(3)} c') == {
    ('a', 'b', '§'),
    ('b', '§', 'c'),
  }
  assert explanations.shingles('One two') == {('one', 'two')}
  assert explanations.shingles('') == {()}


def test_the_later_one_is_found_whatever_it_cites():
  texts = [f'As {cite(i)} it is blue, so {cite(i + 1)}.' for i in range(3)]
  texts.insert(1, 'Another thing altogether.')
  assert explanations.near_duplicates(texts, 1.0) == {2, 3}
  assert explanations.near_duplicates(texts, 0.0) == set()
  assert explanations.near_duplicates([], 0.5) == set()


def test_the_threshold_by_hand():
  # Four and five shingles, four of them shared: 4 / 5.
  texts = ['a b c d e f', 'a b c d e f g']
  assert explanations.near_duplicates(texts, 0.8) == {1}
  assert explanations.near_duplicates(texts, 0.81) == set()


def test_what_was_turned_down_turns_nothing_down():
  # Each is near the one before it, the third not near the first: 4/6 and 3/7.
  texts = ['a b c d e f g', 'b c d e f g h', 'c d e f g h i']
  assert explanations.near_duplicates(texts, 0.6) == {1}
  assert explanations.near_duplicates(texts[1:], 0.6) == {1}


@hypothesis.given(texts=TEXTS, threshold=st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_it_is_exact(texts, threshold):
  sets = [explanations.shingles(text) for text in texts]
  expected = set()
  for row, earlier in itertools.product(range(len(texts)), repeat=2):
    if earlier < row and earlier not in expected:
      shared = len(sets[row] & sets[earlier])
      if shared >= threshold * len(sets[row] | sets[earlier]) - 1e-9:
        expected.add(row)
  assert explanations.near_duplicates(texts, threshold) == expected


def test_citations_by_hand():
  found = explanations.measure(
    [
      f'Like {cite(1)}: {cite(5)}',
      f'{cite(5)}, not {cite(6)}, {cite(20)} or {NOBODY}',
      'No idea.',
      f'{cite(5)} {cite(2)}',
    ],
    [[1, 2], [1], [3], [2]],
    [[5, 6], [5, 6], [5, 6], [6, 5]],
    CITATIONS,
  )
  assert found['explanations'] == 4
  assert found['citing'] == 0.75
  # Eight citations: 1 5 | 5 6 20 - | 5 2.
  assert found['cited_exist'] == 7 / 8
  assert found['cited_history'] == 2 / 8
  assert found['cited_candidates'] == 4 / 8
  # The first alone ends with its list's first item.
  assert found['last_is_top'] == 0.25


def test_distinct_by_hand():
  # Words: a b a | a b, and the number of each n-gram.
  texts = [f'A, b {cite(1)}', f'a b {cite(2)} {cite(3)}']
  # a b § | a b § §: 3 of 7; ab b§ ab b§ §§: 3 of 5; ab§ ab§ b§§: 2 of 3.
  assert explanations.distinct(texts, 1) == pytest.approx(3 / 7)
  assert explanations.distinct(texts, 2) == pytest.approx(3 / 5)
  assert explanations.distinct(texts, 3) == pytest.approx(2 / 3)
  # No n-gram spans two texts.
  assert explanations.distinct(['a b', 'c d'], 2) == 1
  assert explanations.distinct(['a b', 'c d'], 3) == 0
  assert explanations.distinct(['a b', '', 'a b'], 2) == 0.5


def test_nothing_is_measured_as_0():
  found = explanations.measure([], [], [], CITATIONS)
  assert found.pop('explanations') == 0 and set(found.values()) == {0}
  assert explanations.measure([''], [[]], [[]], CITATIONS)['last_is_top'] == 0


@hypothesis.given(
  texts=st.lists(st.lists(st.sampled_from('abc'), max_size=6)),
  n=st.integers(1, 4),
)
def test_distinct_is_the_count_of_tuples(texts, n):
  grams = [
    tuple(words[i : i + n])
    for words in texts
    for i in range(len(words) - n + 1)
  ]
  expected = len(set(grams)) / len(grams) if grams else 0
  found = explanations.distinct([' '.join(words) for words in texts], n)
  assert found == pytest.approx(expected)
