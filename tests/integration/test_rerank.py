"""New lists re-ranked by a model: orders, fallbacks and errors."""

import dataclasses
import json

import ml_collections
import numpy as np
import pytest
import small

from gr2_jax import rerank
from gr2_jax.stages import artifacts
from gr2_jax.stages import ranking as ranking_lib

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


def test_answers_of_the_list_alone(constrained):
  direct = dataclasses.replace(constrained, mode=ranking_lib.DIRECT)
  for record in rerank.rank_records(direct, LISTS):
    assert record['valid']
    (first,) = direct.store.citations.find(record['explanation'])
    items = direct.store.dataset.items
    assert items[first].item_id == record['order'][0]
    title = direct.store.title(first)
    assert record['explanation_titles'] == f'First: {title}'
    assert sorted(record['order']) == sorted(record['candidates'])
  ranking = direct.rank([[1, 2]], [[3, 4, 5]])[0]
  # Three delimiters, an item in its wrappers, three of two codes with what
  # follows each, the end.
  assert ranking.tokens == 3 + 4 + 3 * 3 + 1


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


FEATURES = {'ctr': [0.5, 0.25, 0.125, 2], 'age': [1, 2, 3, 4]}


class Scripted:
  """Stands in for a ranker: keeps what it is given and the incoming order."""

  def __init__(self, ranker, columns):
    config = ml_collections.ConfigDict({'candidates': {'source': 'slates'}})
    self.store = artifacts.Artifacts(config, ranker.store.workdir)
    self.store.__dict__['dataset'] = dataclasses.replace(
      ranker.store.dataset, slate_columns=columns
    )

  def rank(self, histories, candidates, batch_size, features, scores):
    self.given = features, scores
    return [
      ranking_lib.Ranking(items, '', '', True, 1, 1) for items in candidates
    ]


def test_numbers_of_records_reach_the_ranker(constrained):
  stub = Scripted(constrained, ('age', 'ctr'))
  records = [
    {**LISTS[0], 'features': FEATURES, 'scores': [3, -1, 0.5, 1e-3]},
    {**LISTS[1], 'features': {'age': [5, 6], 'ctr': [7, 8]}},
  ]
  lines = [json.dumps(record) for record in records]
  read = rerank.read_records(lines, 'in', stub.store.user_columns)
  assert read == records
  ranked = rerank.rank_records(stub, read)
  assert [r['features'] for r in ranked] == [r['features'] for r in records]
  features, scores = stub.given
  # In the order of the run's columns.
  assert features[0].dtype == scores[0].dtype == np.float32
  assert features[0].tolist() == [[1, 0.5], [2, 0.25], [3, 0.125], [4, 2]]
  assert features[1].tolist() == [[5, 7], [6, 8]]
  np.testing.assert_array_equal(scores[0], np.float32([3, -1, 0.5, 1e-3]))
  assert scores[1] is None
  plain = Scripted(constrained, ())
  rerank.rank_records(plain, LISTS)
  assert plain.given == (None, [None] * 3)


@pytest.mark.parametrize(
  'columns, given, message',
  [
    (('ctr', 'age'), {}, r"lacks the columns \['ctr', 'age'\]"),
    (('ctr',), {'features': FEATURES}, r"has \['age'\], which the run does"),
    ((), {'features': FEATURES}, r"has \['ctr', 'age'\].*leave them out"),
    (
      ('ctr', 'age'),
      {'features': {**FEATURES, 'age': [1, 2]}},
      r"\['age'\] has 2 numbers for 4 candidates",
    ),
    (
      ('ctr', 'age'),
      {'features': {**FEATURES, 'age': [1, 2, 3, float('inf')]}},
      r"\['age'\] is inf at place 3",
    ),
    ((), {'scores': [1, 2, 3]}, 'scores has 3 numbers for 4 candidates'),
    ((), {'scores': [1, 2, 3, float('nan')]}, 'scores is nan at place 3'),
    ((), {'scores': 'best'}, "scores is 'best'; give a list of numbers"),
  ],
)
def test_numbers_that_do_not_fit_are_refused(
  constrained, columns, given, message
):
  record = {**LISTS[0], **given}
  with pytest.raises(ValueError, match=f'^List 1: .*{message}'):
    good = {**LISTS[0], 'features': {name: [1, 2, 3, 4] for name in columns}}
    rerank.rank_records(Scripted(constrained, columns), [good, record])
  with pytest.raises(ValueError, match=f'^in:2: .*{message}'):
    lines = ['', json.dumps(record)]
    rerank.read_records(lines, 'in', columns)


def test_what_is_wrong_in_itself_needs_no_run_to_be_named():
  line = json.dumps({**LISTS[0], 'features': {'ctr': [1]}})
  with pytest.raises(ValueError, match=r"^in:1: features\['ctr'\] has 1"):
    rerank.read_records([line], 'in')
  line = json.dumps({**LISTS[0], 'features': FEATURES})
  assert len(rerank.read_records([line], 'in')) == 1


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
