import copy

import numpy as np
import pytest

from gr2_jax.report import results, terminal, verdict

INCOMING = np.array([[5, 6, 7], [8, 9, -1]], np.int32)


def test_reorder_sorts_and_keeps_ties_and_padding():
  system = results.reorder(
    INCOMING, np.array([[0.0, 2.0, 0.0], [1.0, 1.0, 9.0]])
  )
  np.testing.assert_array_equal(system.orders, [[6, 5, 7], [8, 9, -1]])
  assert system.valid.all()


def test_from_rankings_pads():
  system = results.from_rankings(
    INCOMING, [np.array([7, 6, 5]), np.array([9, 8])], [True, False], [9, 4]
  )
  np.testing.assert_array_equal(system.orders, [[7, 6, 5], [9, 8, -1]])
  np.testing.assert_array_equal(system.valid, [True, False])
  last = system.take(np.array([1]))
  np.testing.assert_array_equal(last.orders, [[9, 8, -1]])
  assert last.tokens.tolist() == [4] and last.valid.tolist() == [False]


def test_summary_by_hand():
  prerank = results.System(INCOMING, np.ones(2, bool))
  # First list: the target 7 comes to the top. Second: the answer was invalid.
  model = results.from_rankings(
    INCOMING, [np.array([7, 5, 6]), np.array([8, 9])], [True, False], [9, 4]
  )
  table, deltas = results.summarise(
    {'rl': model, 'sft': prerank, 'prerank': prerank},
    INCOMING,
    np.array([7, 8]),
    seed=0,
  )
  assert table['prerank']['recall@1'] == 0.5
  assert table['prerank']['identity_rate'] == 1.0
  assert table['rl']['recall@1'] == 1.0
  assert table['rl']['valid_rate'] == 0.5
  # The fallback equals the incoming order but is no valid answer.
  assert table['rl']['identity_rate'] == 0.0
  assert table['prerank']['ndcg@3'] == pytest.approx((0.5 + 1) / 2)
  assert list(table) == ['prerank', 'sft', 'rl']
  assert list(deltas) == ['rl-prerank', 'rl-sft']
  assert deltas['rl-prerank']['recall@1'] == [0.5, 0.0, 1.0]
  assert list(table['rl']) == [
    'recall@1',
    'recall@3',
    'recall@5',
    'ndcg@3',
    'ndcg@5',
    'valid_rate',
    'identity_rate',
    'answer_tokens',
  ]
  assert table['rl']['answer_tokens'] == 6.5
  assert (
    results.difference(model, prerank, np.array([7, 8]), seed=0)
    == (deltas['rl-prerank'])
  )


def test_systems_and_differences_have_an_order():
  system = results.System(INCOMING, np.ones(2, bool))
  names = [*results.SYSTEMS]
  assert names == [
    *('prerank', 'random', 'popularity', 'sasrec', 'rules', 'evidence', 'sft'),
    *('rl', 'rl_alone', 'direct', 'list'),
  ]
  turned = dict.fromkeys([*names[::-1], 'another'], system)
  table, deltas = results.summarise(turned, INCOMING, np.array([7, 8]), seed=0)
  assert list(table) == [*names, 'another']
  assert list(deltas) == [
    *('rl-prerank', 'rl_alone-prerank', 'rl-evidence', 'rl-sft'),
    *('direct-rl', 'sasrec-prerank'),
  ]
  del turned['evidence'], turned['sasrec']
  _, deltas = results.summarise(turned, INCOMING, np.array([7, 8]), seed=0)
  assert not {'rl-evidence', 'sasrec-prerank'} & set(deltas)


def test_lists_of_one_user_are_drawn_together():
  incoming = np.tile(np.arange(3, dtype=np.int32), (60, 1))
  targets = np.zeros(60, int)
  users = np.repeat(np.arange(6), 10)
  good = results.System(incoming, np.ones(60, bool))
  # It fails for every second user.
  bad = results.reorder(
    incoming, np.where(users % 2, -1, 1)[:, None] * -incoming
  )
  alone = results.difference(bad, good, targets, 0)['recall@1']
  by_user = results.difference(bad, good, targets, 0, users=users)['recall@1']
  assert alone[0] == by_user[0] == -0.5
  # Six users make sixths; three hits of six, as a binomial.
  assert by_user[1:] == [pytest.approx(-5 / 6), pytest.approx(-1 / 6)]
  assert alone[2] - alone[1] < 0.5 * (by_user[2] - by_user[1])
  systems = {'prerank': good, 'rl': bad}
  _, deltas = results.summarise(systems, incoming, targets, 0, users=users)
  assert deltas['rl-prerank']['recall@1'] == by_user


def test_how_much_of_the_catalogue_lists_hold():
  assert results.coverage(INCOMING, 50) == 5 / 50
  assert results.coverage(np.array([[3, 4], [4, 3], [3, -1]]), 8) == 0.25


def test_how_often_one_item_is_first():
  orders = np.array([[4, 1], [2, 4], [4, 2], [4, -1]])
  assert results.top_share(orders) == 0.75
  assert results.top_share(INCOMING) == 0.5


def test_grades_by_hand():
  grades = np.array([[1, 0, 2], [1, 0, 0]])
  prerank = results.System(INCOMING, np.ones(2, bool))
  # 7 6 5 has grades 2 0 1: one of two pairs is wrong; 9 8 turns the only one.
  model = results.from_rankings(
    INCOMING, [np.array([7, 6, 5]), np.array([9, 8])], [True, True], [9, 6]
  )
  values = results.graded_by_list(model, INCOMING, grades)
  np.testing.assert_array_equal(values['auc'], [0.5, 0.0])
  third = 1 / np.log2(3)
  # Gains 3 0 1 against 3 1 0, in float32.
  expected = [(3 + 1 / 2) / (3 + third), third]
  np.testing.assert_allclose(values['graded_ndcg'], expected, atol=1e-6)
  systems = {'prerank': prerank, 'sft': prerank, 'rl': model}
  args = (systems, INCOMING, np.array([7, 8]), 0)
  table, deltas = results.summarise(*args, grades=grades)
  assert table['prerank']['auc'] == 0.75 and table['rl']['auc'] == 0.25
  assert deltas['rl-prerank']['auc'][0] == -0.5
  # The items say which grade is whose, whatever order they came in.
  turned = INCOMING[:, [1, 0, 2]], grades[:, [1, 0, 2]]
  again = results.difference(model, prerank, args[2], 0, graded=turned)
  assert again == deltas['rl-prerank']
  plain, _ = results.summarise(*args)
  without = {k: v for k, v in table['rl'].items() if k not in results.GRADED}
  assert without == plain['rl']


def test_grades_stand_in_a_table_of_their_own(report):
  graded = copy.deepcopy(report)
  for values in graded['rerank']['systems'].values():
    values |= {'auc': 0.625, 'graded_ndcg': 0.875}
  for values in graded['rerank']['deltas'].values():
    values |= {name: [0.5, 0.25, 0.75] for name in results.GRADED}
  text = terminal.closing_table(graded)
  table = [' '.join(line.split()) for line in text.splitlines()]
  assert 'system auc graded_ndcg' in table and 'rl 0.625 0.875' in table
  assert max(map(len, text.splitlines())) <= 80


def test_closing_table_shows_systems_and_intervals(report):
  text = terminal.closing_table(report)
  lines = text.splitlines()
  value = report['rerank']['systems']['rl']['recall@1']
  row = next(line for line in lines if line.startswith('rl '))
  assert f'{value:.3f}' in row
  triple = report['rerank']['deltas']['rl-prerank']['ndcg@5']
  assert results.interval(triple) in text
  # Tokens are whole numbers, in columns of their own.
  head = next(line for line in lines if line.startswith('system'))
  assert head.split()[-2:] == ['in', 'out']
  assert row.split()[-1] == '93'
  for name in results.SYSTEMS:
    shown = name in report['rerank']['systems']
    assert any(line.startswith(f'{name} ') for line in lines) == shown
  assert 'a linear listwise model on exactly the columns' in text
  assert ' '.join(text.split()).count(verdict.sentence(report)) == 1
  assert 'direct-rl' in text and 'Candidates of 500 lists in random' in text
  assert 'hit rate 0.160' in text
  assert max(map(len, lines)) <= 80
  assert results.interval([0.5, -0.25, 1]) == '+0.500 [-0.250, +1.000]'


def test_closing_table_of_few_systems(report):
  few = copy.deepcopy(report)
  rerank = few['rerank']
  rerank['systems'] = {'rl': rerank['systems']['rl']}
  rerank['deltas'] = {}
  del rerank['shuffled']
  few['warnings'] = ['Word ' * 40]
  few['verdict'] = 'Nothing.'
  lines = terminal.closing_table(few).splitlines()
  assert 'Nothing.' in lines and '! ' + 'Word ' * 14 + 'Word' in lines
  assert max(map(len, lines)) <= 80
  assert not any('Differences' in line for line in lines)


def test_retrieval_table(report):
  lines = terminal.retrieval_table(report).splitlines()
  table = [' '.join(line.split()) for line in lines]
  assert 'ml-100k, seed 0, whole catalogue, 9430 targets' in table
  assert 'sasrec 0.1000 0.1600 0.0700 0.0900 0.0000' in table
  assert 'lm lm-popularity lm-sasrec' in table
  triple = results.interval([0.16, 0.15, 0.17])
  assert f'recall@10 {triple} {triple} {triple}' in table
  assert table[-1].endswith('0.600, 0.300, 0.200, 0.160')
