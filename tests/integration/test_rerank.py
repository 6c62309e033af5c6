"""New lists re-ranked by a model: orders, fallbacks and errors."""

import json

import pytest
import small

from gr2_jax import rerank

LISTS = [
  {'history': ['i1', 'i2', 'i3'], 'candidates': ['i4', 'i5', 'i6', 'i7']},
  {'history': [], 'candidates': ['i9', 'i8'], 'note': 'kept'},
  {'history': ['i1'], 'candidates': ['i3', 'i0', 'i19']},
]


@pytest.fixture(scope='module')
def constrained(tmp_path_factory, mesh1):
  return small.make_ranker(tmp_path_factory.mktemp('run'), mesh1, True)


@pytest.fixture(scope='module')
def ranked(constrained):
  return rerank.rank_records(constrained, LISTS)


def test_answers_are_permutations_of_lists_of_any_length(ranked):
  for record, result in zip(LISTS, ranked, strict=True):
    assert result['valid']
    assert sorted(result['order']) == sorted(record['candidates'])
    assert result['candidates'] == record['candidates']
  assert ranked[1]['note'] == 'kept'
  # An untrained model has no reason to keep all three orders.
  assert any(r['order'] != r['candidates'] for r in ranked)


def test_neighbours_in_the_batch_and_devices_do_not_change_the_order(
  ranked, constrained, mesh8, tmp_path
):
  turned = rerank.rank_records(constrained, LISTS[::-1])
  assert turned[::-1] == ranked
  eight = small.make_ranker(tmp_path, mesh8, True)
  assert rerank.rank_records(eight, LISTS) == ranked


def test_an_invalid_answer_falls_back_to_the_incoming_order(tmp_path, mesh1):
  free = small.make_ranker(tmp_path, mesh1, False)
  for record in rerank.rank_records(free, LISTS):
    assert not record['valid']
    assert record['order'] == record['candidates']


def test_answers_of_the_list_alone(constrained, tmp_path, mesh1):
  direct = constrained.direct()
  for record in rerank.rank_records(direct, LISTS):
    assert record['valid'] and record['explanation'] == ''
    assert sorted(record['order']) == sorted(record['candidates'])
  ranking = direct.rank([[1, 2]], [[3, 4, 5]])[0]
  # Two delimiters, three items of two codes with what follows each, the end.
  assert ranking.tokens == 2 + 3 * 3 + 1
  free = small.make_ranker(tmp_path, mesh1, False)
  with pytest.raises(ValueError, match=r'rl\.constrain'):
    free.direct()


def test_unknown_items_are_named(constrained):
  records = [{'history': ['x1'], 'candidates': ['i1', 'x2']}]
  with pytest.raises(ValueError, match=r"2 items .*\['x1', 'x2'\]"):
    rerank.rank_records(constrained, records)


@pytest.mark.parametrize(
  'candidates, message',
  [
    (['i1', 'i1'], 'twice'),
    (['i1'], '1 candidates'),
    (['i1', 'i2', 'i3', 'i4', 'i5'], '5 candidates'),
  ],
)
def test_impossible_lists_are_refused(constrained, candidates, message):
  with pytest.raises(ValueError, match=message):
    rerank.rank_records(
      constrained, [{'history': [], 'candidates': candidates}]
    )


def test_bad_lines_are_named_with_source_and_number():
  good = json.dumps(LISTS[0])
  assert rerank.read_records([good, '\n'], 'in') == [LISTS[0]]
  with pytest.raises(ValueError, match='in:2: not JSON'):
    rerank.read_records([good, '{'], 'in')
  with pytest.raises(ValueError, match="in:1: 'history' must be a list"):
    rerank.read_records(['{"candidates": ["i1"]}'], 'in')
  with pytest.raises(ValueError, match="in:1: 'candidates' must be a list"):
    rerank.read_records(['{"history": [], "candidates": [1]}'], 'in')


def test_a_missing_run_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='config.json is missing'):
    rerank.load(tmp_path)


@pytest.mark.parametrize(
  'line',
  [b'{"history": ["\xff"]}', b'[' * 200_000, b'9' * 5000, b'\x80\x04K', '[{'],
)
def test_lines_that_break_parsers_are_named(line):
  good = '{"history": [], "candidates": ["i1", "i2"]}'
  with pytest.raises(ValueError, match='lists.jsonl:3: '):
    rerank.read_records([good, '', line], 'lists.jsonl')
  assert rerank.read_records([good.encode()], '-') == [json.loads(good)]
