"""Each reason to turn an answer down, by hand."""

import dataclasses

import pytest

from gr2_jax.teacher import acceptance, base
from tests.teacher.scripted import accept, cite, request, sound

REJECTION, TARGETED = acceptance.REJECTION, acceptance.TARGETED
ASKED = request([1, 2, 3], history=[7, 8])
GOOD = f'Like {cite(8)} it is blue, so {cite(2)}.'


def rejection(ranking, text=GOOD, mode=REJECTION, asked=ASKED, **fields):
  answer = base.Answer(ranking, text, **fields)
  rule = accept(lambda words: len(words) < 150)
  return acceptance.rejection_reason(answer, asked, 2, mode, rule)


def test_what_is_kept():
  for mode in (REJECTION, TARGETED):
    assert rejection([2, 3, 1], mode=mode) is None
  # Each citation may stand anywhere, and others beside it.
  text = f'{cite(2)} and {cite(20)}, after {cite(7)}'
  assert rejection([2, 1, 3], text) is None


@pytest.mark.parametrize(
  'reason, ranking, text',
  [
    ('unknown_item', [2, 1, 9], GOOD),
    ('unknown_item', [2, 2, 9], GOOD),
    ('repeated_item', [2, 1, 1], GOOD),
    ('missing_item', [2, 1], GOOD),
    ('missing_item', [], GOOD),
    ('empty_explanation', [2, 1, 3], ' \n'),
    ('too_long', [2, 1, 3], GOOD + ' very' * 50),
    ('cites_no_history', [2, 1, 3], f'So {cite(2)}.'),
    # Another user's item, and a level too few, are no history.
    ('cites_no_history', [2, 1, 3], f'As {cite(6)} so {cite(2)}.'),
    ('cites_no_history', [2, 1, 3], f'<|sid_begin|><s_a_1>{cite(2)}'),
    ('cites_not_top', [2, 1, 3], f'As {cite(8)} so {cite(1)}.'),
    ('wrong_top', [1, 2, 3], f'As {cite(8)} so {cite(1)}.'),
  ],
)
def test_reasons_of_rejection_sampling(reason, ranking, text):
  assert rejection(ranking, text) == reason


def test_words_may_leave_the_choice_to_the_answer():
  """The rules name the history alone; `top` names the first item."""
  answer = base.Answer([2, 1, 3], f'As {cite(8)}.')
  given = answer, ASKED, 2, REJECTION
  assert acceptance.rejection_reason(*given, accept()) == 'cites_not_top'
  blind = dataclasses.replace(accept(), names_top=False)
  assert acceptance.rejection_reason(*given, blind) is None
  other = base.Answer([2, 1, 3], f'As {cite(3)}.')
  got = acceptance.rejection_reason(other, ASKED, 2, REJECTION, blind)
  assert got == 'cites_no_history'


def test_semantic_ids_must_be_copied_exactly():
  bare = cite(8).removeprefix('<|sid_begin|>').removesuffix('<|sid_end|>')
  for wrong in (
    bare,
    cite(8).replace('<s_a_1>', '<s_a_01>'),
    cite(8).replace('<s_b_3>', ' <s_b_3>'),
    cite(8).upper(),
  ):
    assert rejection([2, 1, 3], f'{wrong} {cite(2)}') == 'cites_no_history'


def test_the_reason_of_an_unreadable_text_comes_first():
  for problem in ('not_json', 'wrong_keys', 'cut_off', 'refused'):
    assert rejection([], '', problem=problem) == problem
    assert problem in acceptance.REASONS


def test_half_a_character_is_no_text():
  assert rejection([2, 1, 3], f'\ud800 {GOOD}') == 'not_json'


def test_without_a_history_none_is_cited():
  asked = request([1, 2, 3], history=[])
  assert rejection([2, 1, 3], f'So {cite(2)}.', asked=asked) is None
  assert rejection([2, 1, 3], 'So be it.', asked=asked) == 'cites_not_top'


def test_targeted_the_hint_is_what_must_be_explained():
  asked = dataclasses.replace(ASKED, hint=2)
  both = lambda ranking, top: rejection(
    ranking, f'As {cite(8)} so {cite(top)}.', mode=TARGETED, asked=asked
  )
  assert both([2, 1, 3], 2) is None
  # The trace's list will begin with the hint.
  assert both([1, 2, 3], 2) is None
  assert both([1, 2, 3], 1) == 'cites_not_top'


def test_the_list_that_is_trained_on():
  assert acceptance.order([3, 1, 4, 2], 4) == [4, 3, 1, 2]
  assert acceptance.order([4, 3], 4) == [4, 3]


def test_what_the_other_tests_call_sound():
  asked, answer = request([1, 2, 3]), sound([2, 1, 3])
  assert (
    acceptance.rejection_reason(answer, asked, 2, REJECTION, accept()) is None
  )


def test_advice_fits_the_counts():
  assert set(acceptance.REMEDIES) == set(acceptance.REASONS)
  told = acceptance.advice({'wrong_top': 60, 'not_json': 30, 'cut_off': 10})
  assert told.startswith('rejected: wrong_top 60, not_json 30, cut_off 10;')
  assert 'traces.attempts' in told and 'thinking off' not in told
  told = acceptance.advice({'wrong_top': 6, 'not_json': 30, 'refused': 0})
  assert 'thinking off' in told and 'attempts' not in told
  assert 'refused' not in told
