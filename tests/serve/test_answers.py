"""Answers as documents: places, scores, titles."""

import math

import pytest

from gr2_jax.serve import answers, requests

GIVEN = requests.Input(
  {'history': ['h'], 'candidates': ['a', 'b', 'x']}, 'it', texts={'x': 'New'}
)
FOUND = {
  'order': ['b', 'a', 'x'],
  'scores': [1.0, 0.0, None],
  'explanation_titles': 'Because.',
  'valid': True,
  'unknown': ['x'],
}


def _answer(**options):
  request = requests.Request([GIVEN], **options)
  return answers.answer(GIVEN, FOUND, request, str.upper)


def test_results_name_their_places_among_the_candidates():
  assert _answer() == {
    'results': [
      {'index': 1, 'relevance_score': 1.0, 'item_id': 'b'},
      {'index': 0, 'relevance_score': 0.0, 'item_id': 'a'},
      {'index': 2, 'relevance_score': None},
    ],
    'explanation': 'Because.',
    'valid': True,
    'unknown': ['x'],
  }
  (first,) = _answer(top_n=1, return_documents=True)['results']
  assert first['document'] == {'text': 'B'}
  assert _answer(return_documents=True)['results'][2]['document'] == {
    'text': 'New'
  }


def test_probabilities():
  found = answers.probabilities([math.log(3), 0.0, None])
  assert found == pytest.approx([0.75, 0.25, 0.0])
  assert answers.probabilities([None, None]) == [1.0, 0.5]
  # Large utilities do not overflow.
  assert answers.probabilities([1e4, 0.0]) == [1.0, 0.0]
  scores = [
    r['relevance_score'] for r in _answer(probabilities=True)['results']
  ]
  assert sum(scores) == pytest.approx(1) and scores[2] == 0


def test_the_fallback_is_the_incoming_order():
  request = requests.Request([GIVEN])
  found = answers.fallback(GIVEN, 'deadline')
  made = answers.answer(GIVEN, found, request, str.upper)
  assert [x['index'] for x in made['results']] == [0, 1, 2]
  assert not made['valid'] and made['fallback'] == 'deadline'
