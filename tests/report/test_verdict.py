"""What a report comes to in words, case by case."""

import copy

import pytest

from gr2_jax.report import verdict

WON = [0.043, 0.027, 0.06]
LEVEL = [0.004, -0.002, 0.01]
LOST = [-0.03, -0.05, -0.01]


def _report(**deltas):
  named = {
    f'rl-{name}': {'ndcg@5': triples[0], 'recall@5': triples[1]}
    for name, triples in deltas.items()
  }
  return {'rerank': {'n': 1000, 'k': 10, 'systems': {}, 'deltas': named}}


def test_a_win_over_everything():
  report = _report(
    prerank=(WON, [0.1, 0.05, 0.15]), evidence=(WON, WON), sft=(WON, LEVEL)
  )
  assert verdict.sentence(report) == (
    'The re-ranker (rl) beats the incoming order in NDCG@5 (+0.043 [+0.027, '
    '+0.060]) and Recall@5 (+0.100 [+0.050, +0.150]). It beats the linear '
    'model on the same evidence in NDCG@5 (+0.043 [+0.027, +0.060]) and '
    'Recall@5 (+0.043 [+0.027, +0.060]): the language model adds to the '
    'evidence.'
  )


def test_metrics_that_disagree():
  report = _report(prerank=(WON, LEVEL), evidence=(LEVEL, LOST))
  assert verdict.sentence(report) == (
    'The re-ranker (rl) beats the incoming order in NDCG@5 (+0.043 [+0.027, '
    '+0.060]) and is level with it in Recall@5 (+0.004 [-0.002, +0.010]). It '
    'is '
    'level with the linear model on the same evidence in NDCG@5 (+0.004 '
    '[-0.002, +0.010]) and loses to it in Recall@5 (-0.030 [-0.050, -0.010]): '
    'the language model adds nothing to the evidence.'
  )


@pytest.mark.parametrize(
  ('evidence', 'end'),
  [
    ((WON, LEVEL), ': the language model adds to the evidence.'),
    ((LEVEL, LEVEL), ': the language model adds nothing to the evidence.'),
    ((LOST, LOST), ': the language model adds nothing to the evidence.'),
    # One for, one against: no conclusion.
    ((WON, LOST), 'loses to it in Recall@5 (-0.030 [-0.050, -0.010]).'),
  ],
)
def test_what_the_language_model_adds(evidence, end):
  report = _report(prerank=(WON, WON), evidence=evidence)
  assert verdict.sentence(report).endswith(end)


def test_a_loss_to_sft_is_said():
  report = _report(prerank=(WON, WON), sft=(LEVEL, LOST))
  said = verdict.sentence(report)
  assert said.endswith(
    ', and loses to SFT in Recall@5 (-0.030 [-0.050, -0.010]).'
  )
  assert 'SFT' not in verdict.sentence(
    _report(prerank=(WON, WON), sft=(WON, WON))
  )
  alone = verdict.sentence(_report(sft=(LOST, LOST)))
  assert alone.startswith('The re-ranker (rl) loses to SFT in NDCG@5 (')


@pytest.mark.parametrize('edge', [[0.0, 0.0, 0.0], [0.01, 0.0, 0.02]])
def test_an_interval_that_holds_zero_is_no_difference(edge):
  said = verdict.sentence(_report(prerank=(edge, edge)))
  assert said.startswith('The re-ranker (rl) is level with the incoming order')


def test_what_is_missing_is_left_out():
  evidence = verdict.sentence(_report(evidence=(LEVEL, LEVEL)))
  assert evidence.startswith('The re-ranker (rl) is level with the linear mod')
  assert 'incoming' not in evidence
  one = _report(prerank=(WON, WON))
  del one['rerank']['deltas']['rl-prerank']['recall@5']
  assert 'Recall' not in verdict.sentence(one)
  assert 'compared with nothing' in verdict.sentence(_report())


def _healthy():
  report = _report(prerank=(WON, WON))
  report['rerank'] |= {'n': 300, 'coverage': 0.1, 'top_share': 0.5}
  report['traces'] = {'accepted': 300}
  report['rl'] = {'valid_ndcg@5_exported': 0.4, 'valid_ndcg@5_best': 0.4}
  return report


def test_at_the_bounds_nothing_is_warned_of():
  assert verdict.warnings(_healthy()) == []
  # Reports from before there were such numbers.
  assert verdict.warnings(_report()) == []
  assert verdict.warnings(_report() | {'rl': {'updates': 2}}) == []


@pytest.mark.parametrize(
  ('section', 'values', 'said'),
  [
    ('rerank', {'n': 299}, 'Only 299 test lists'),
    ('traces', {'accepted': 299}, 'Only 299 traces'),
    ('rerank', {'coverage': 0.099}, '9.9% of the catalogue'),
    ('rerank', {'top_share': 0.51}, 'first in 51% of the lists'),
    ('rl', {'valid_ndcg@5_exported': 0.39}, r'NDCG@5 0.3900 against 0.4000'),
    ('rl', {'ended': 'RL ended after 3 steps.'}, 'RL ended after 3 steps.'),
  ],
)
def test_each_way_to_be_degenerate(section, values, said):
  report = _healthy()
  report[section] |= values
  (warning,) = verdict.warnings(report)
  assert said in warning


def test_stored_lines_are_shown_and_missing_ones_made():
  report = _healthy()
  report['rerank']['n'] = 7
  made = verdict.lines(report)
  assert made == [verdict.sentence(report), *verdict.warnings(report)]
  assert len(made) == 2
  stored = copy.deepcopy(report) | {'verdict': 'a', 'warnings': ['b', 'c']}
  assert verdict.lines(stored) == ['a', 'b', 'c']
