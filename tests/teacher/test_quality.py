"""Measures of explanations, on texts made by hand."""

import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax.teacher import citations, quality
from tests.teacher.scripted import SIDS, cite

CITATIONS = citations.Citations(SIDS)
NOBODY = '<|sid_begin|><s_a_0><s_b_9><|sid_end|>'


def test_citations_by_hand():
  found = quality.measure(
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
  assert quality.distinct(texts, 1) == pytest.approx(3 / 7)
  assert quality.distinct(texts, 2) == pytest.approx(3 / 5)
  assert quality.distinct(texts, 3) == pytest.approx(2 / 3)
  # No n-gram spans two texts.
  assert quality.distinct(['a b', 'c d'], 2) == 1
  assert quality.distinct(['a b', 'c d'], 3) == 0
  assert quality.distinct(['a b', '', 'a b'], 2) == 0.5


def test_nothing_is_measured_as_0():
  found = quality.measure([], [], [], CITATIONS)
  assert found.pop('explanations') == 0 and set(found.values()) == {0}
  assert quality.measure([''], [[]], [[]], CITATIONS)['last_is_top'] == 0


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
  found = quality.distinct([' '.join(words) for words in texts], n)
  assert found == pytest.approx(expected)
