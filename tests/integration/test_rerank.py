"""New lists re-ranked by a model: orders, fallbacks and errors."""

import dataclasses
import json
import re

import ml_collections
import numpy as np
import pytest

from gr2_jax import assets, rerank
from gr2_jax.data import generic
from gr2_jax.decode import retrieve
from gr2_jax.lm import decoder
from gr2_jax.rank import evidence
from gr2_jax.ranker import catalogues, finding, grown, ranker
from gr2_jax.ranker import ranking as ranking_lib
from gr2_jax.run import artifacts
from gr2_jax.sid import growth, index
from tests.integration import small

LISTS = [
  {'history': ['i1', 'i2', 'i3'], 'candidates': ['i4', 'i5', 'i6', 'i7']},
  {'history': [], 'candidates': ['i9', 'i8'], 'note': 'kept'},
  {'history': ['i1'], 'candidates': ['i3', 'i0', 'i19']},
]


@pytest.fixture(scope='module')
def constrained(tmp_path_factory, mesh1):
  return small.make_ranker(tmp_path_factory.mktemp('run'), mesh1, True)


@pytest.fixture(scope='module')
def by_utilities(tmp_path_factory, mesh1):
  weights = {'popularity': 0.3, 'content': 0.5, 'log_rank': 0.2}
  head = small.head(1.0, weights, evidence.NAMES, words=0.5)
  return small.make_ranker(tmp_path_factory.mktemp('run'), mesh1, given=head)


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


def test_unknown_items_are_left_out_and_ranked_last(constrained, ranked):
  record = {
    'history': ['x1', 'i1', 'x2', 'i2', 'i3'],
    'candidates': ['x4', 'i4', 'i5', 'x1', 'i6', 'i7'],
    'scores': [9, 1, 2, 9, 3, 4],
  }
  (found,) = rerank.rank_records(constrained, [record])
  (plain,) = rerank.rank_records(
    constrained, [{**LISTS[0], 'scores': [1, 2, 3, 4]}]
  )
  assert found['order'] == [*plain['order'], 'x4', 'x1']
  assert found['unknown'] == ['x4', 'x1'] and found['unknown_history'] == 2
  assert found['explanation'] == plain['explanation']
  assert not {'unknown', 'unknown_history'} & set(plain)
  # One known candidate, and none.
  one, none = rerank.rank_records(
    constrained,
    [
      {'history': [], 'candidates': ['x1', 'i3']},
      {'history': ['x9'], 'candidates': ['x1', 'x0']},
    ],
  )
  assert one['order'] == ['i3', 'x1'] and one['valid']
  assert none['order'] == none['unknown'] == ['x1', 'x0']
  assert none['scores'] == [None, None] and none['explanation'] == ''


def test_scores_are_the_utilities_in_the_order_of_the_answer(by_utilities):
  record = {**LISTS[0], 'candidates': ['i4', 'x', 'i5', 'i6', 'i7']}
  (found,) = rerank.rank_records(by_utilities, [record])
  store = by_utilities.store
  items = np.array([store.dataset.index[i] for i in LISTS[0]['candidates']])
  (ranking,) = by_utilities.rank([np.array([1, 2, 3])], [items])
  scores = dict(zip(LISTS[0]['candidates'], ranking.utilities, strict=True))
  assert found['scores'][:-1] == sorted(scores.values(), reverse=True)
  assert found['scores'][:-1] == [scores[i] for i in found['order'][:-1]]
  assert found['scores'][-1] is None and found['order'][-1] == 'x'
  # An answer is a record like any other; what it said is not carried over.
  (again,) = rerank.rank_records(
    by_utilities, [{**found, 'scores': None, 'error': 'old'}]
  )
  assert again == found


def test_lists_that_are_written_have_no_scores(ranked):
  assert all(record['scores'] is None for record in ranked)


class Codes:
  """Stands in for the tokenizer of a run: codes by title."""

  def __init__(self, codes, problem=None):
    self._codes, self._problem = codes, problem

  def codes(self, items):
    if self._problem:
      raise ValueError(self._problem)
    return np.array([self._codes[item.title] for item in items], np.int32)

  def distinct(self, items, codes, taken):
    keys = growth.content_keys([item.title for item in items])
    return growth.extend(taken, codes, keys, 5)


NEW = {
  # Levels of five codes; 20 of 25 semantic IDs are taken, those from 4 on not.
  'items': [
    {'item_id': 'n1', 'title': 'Film new', 'categories': ['Drama']},
    {'item_id': 'i4', 'title': 'known already', 'categories': []},
    {'item_id': 'n2', 'title': 'Film other', 'categories': ['Comedy']},
    {'item_id': 'n3', 'title': 'not named', 'categories': []},
  ],
  'history': ['i1', 'n2', 'i3'],
  'candidates': ['i4', 'n1', 'i6'],
}
CODES = {'Film new': [4, 1], 'Film other': [4, 1]}


def _with_tokenizer(given, tokenizer):
  made = dataclasses.replace(given)
  made.__dict__['tokenizer'] = tokenizer
  return made


def test_items_that_a_record_brings_are_ranked_like_others(by_utilities):
  """As if they had been in the catalogue, with the same semantic IDs."""
  reranker = _with_tokenizer(by_utilities, Codes(CODES))
  alone = rerank.rank_records(reranker, [NEW])[0]
  assert sorted(alone['order']) == ['i4', 'i6', 'n1']
  assert None not in alone['scores']
  assert not {'unknown', 'unknown_history'} & set(alone)
  _, sids = growth.extend(
    by_utilities.store.sids,
    np.array([[4, 1], [4, 1]], np.int32),
    growth.content_keys(['Film new', 'Film other']),
    5,
  )
  items = [generic.item(NEW['items'][i], '') for i in (0, 2)]
  larger = grown.grow(by_utilities, items, sids)
  record = {key: NEW[key] for key in ('history', 'candidates')}
  (known,) = rerank.rank_records(larger, [record])
  for key in ('order', 'explanation', 'explanation_titles'):
    assert alone[key] == known[key]
  np.testing.assert_allclose(alone['scores'], known['scores'], rtol=1e-4)
  # Other lists and their items, of the same semantic ID, change nothing.
  other = {
    **NEW,
    'items': [{'item_id': 'm', 'title': 'Film new', 'categories': []}],
    'candidates': ['m', 'i4', 'i0'],
  }
  found = rerank.rank_records(reranker, [other, LISTS[0], NEW])
  assert found[2]['order'] == alone['order']
  assert found[2]['explanation_titles'] == alone['explanation_titles']
  np.testing.assert_allclose(found[2]['scores'], alone['scores'], rtol=1e-4)
  (plain,) = rerank.rank_records(by_utilities, LISTS[:1])
  assert found[1]['order'] == plain['order']


def test_items_without_semantic_ids_are_errors_of_their_lines(by_utilities):
  lines = [
    json.dumps(record)
    for record in (
      LISTS[0],
      NEW,
      {**NEW, 'items': 'all'},
      {**NEW, 'items': [{'item_id': 'n1'}]},
      {**NEW, 'items': [NEW['items'][0], {**NEW['items'][0], 'title': 'T'}]},
    )
  ]
  reranker = _with_tokenizer(by_utilities, Codes({}, 'no texts'))
  good, *bad = rerank.rank_lines(reranker, lines, 'in')
  assert not good.failed
  for number, (answer, message) in enumerate(
    zip(
      bad,
      ('no texts', "items is 'all'", 'item 0: .*title', 'stands at'),
      strict=True,
    ),
    2,
  ):
    assert answer.failed and 'order' not in answer.record
    assert re.match(f'in:{number}: .*{message}', answer.record['error'])
    assert answer.record['history'] == NEW['history']
  # A catalogue that is full.
  full = [
    {'item_id': f'f{i}', 'title': 'f', 'categories': []} for i in range(6)
  ]
  record = {'history': [f'f{i}' for i in range(6)], 'items': full}
  reranker = _with_tokenizer(by_utilities, Codes({'f': [0, 0]}))
  with pytest.raises(ValueError, match='List 0: 26 items do not fit'):
    rerank.rank_records(reranker, [{**LISTS[0], **record}])


def test_a_catalogue_of_new_items_is_ranked_and_found(
  by_utilities, tmp_path, monkeypatch
):
  store = by_utilities.store
  items = [generic.item(NEW['items'][i], '') for i in (0, 2)]
  path, sids = tmp_path / 'catalogue.jsonl', np.array([[4, 1], [4, 3]])
  catalogues.write(path, items, sids, catalogues.stamp(store.sids))
  monkeypatch.setattr(assets, 'keep_programs', lambda: None)
  monkeypatch.setattr(ranker, 'load', lambda *given: by_utilities)
  loaded = rerank.load('anywhere', catalogue=path, progress=False)
  (found,) = rerank.rank_records(
    loaded, [{'history': ['n2'], 'candidates': ['i4', 'n1']}]
  )
  assert sorted(found['order']) == ['i4', 'n1'] and 'unknown' not in found
  shape, params = decoder.narrow(loaded.config, loaded.params['lm'])
  made = retrieve.Retriever(
    shape,
    params,
    loaded.mesh,
    index.build(loaded.store.sids, 5),
    store.vocab.answer_format(),
    width=22,
    batch_size=1,
  )
  finder = finding.Finder(loaded.store, made, exclude_seen=True)
  (record,) = finder.lists([['n2', 'x', 'i3']], k=20)
  assert record['history'] == ['n2', 'i3']
  everything = {item.item_id for item in loaded.store.dataset.items}
  assert set(record['candidates']) == everything - {'n2', 'i3'}
  assert record['scores'] == sorted(record['scores'], reverse=True)


@pytest.mark.parametrize(
  'candidates, message',
  [
    (['i2', 'i1', 'i1'], "0: the candidate 'i1' stands twice; give it once.$"),
    (['i1'], 'give 2 or more'),
    (['i1', 'i2', 'i3', 'i4', 'i5'], '5 candidates'),
  ],
)
def test_impossible_lists_are_refused(constrained, candidates, message):
  with pytest.raises(ValueError, match=message):
    rerank.rank_records(
      constrained, [{'history': [], 'candidates': candidates}]
    )


def test_whole_numbers_are_ids_as_in_data_files(constrained):
  stub = Scripted(constrained, ())
  items = [
    dataclasses.replace(item, item_id=item.item_id.removeprefix('i'))
    for item in stub.store.dataset.items
  ]
  stub.store.__dict__['dataset'] = dataclasses.replace(
    stub.store.dataset, items=items
  )
  record = {'history': [1, 99, '2'], 'candidates': [5, 77, '4', 0]}
  (found,) = rerank.rank_records(stub, [record])
  # As the record spells them, so that they can be looked up in it.
  assert found['order'] == [5, '4', 0, 77] and found['unknown'] == [77]
  assert found['unknown_history'] == 1
  with pytest.raises(ValueError, match="candidate '5' stands twice"):
    rerank.rank_records(stub, [{**record, 'candidates': [5, '5']}])


def test_bad_lines_are_named_with_source_and_number(constrained):
  stub = Scripted(constrained, ())
  lines = [
    json.dumps({**LISTS[0], 'note': 1}),
    b'\n',
    '{',
    '{"candidates": ["i1"]}',
    '{"history": [], "candidates": [1.5, "i1"], "note": 2}',
  ]
  good, *bad = rerank.rank_lines(stub, lines, 'in', first=7)
  assert not good.failed and good.record['note'] == 1
  assert good.record['order'] == LISTS[0]['candidates']
  assert all(answer.failed for answer in bad)
  errors = [answer.record['error'] for answer in bad]
  assert errors[0].startswith('in:9: not JSON')
  assert errors[1].startswith("in:10: 'history' must be a list")
  assert errors[2].startswith("in:11: an item of 'candidates' is 1.5; give")
  assert bad[2].record['note'] == 2
  assert rerank.rank_lines(stub, [], 'in') == []


FEATURES = {'ctr': [0.5, 0.25, 0.125, 2], 'age': [1, 2, 3, 4]}


class Scripted:
  """Stands in for a ranker: keeps what it is given and the incoming order."""

  def __init__(self, ranker, columns):
    config = ml_collections.ConfigDict({'candidates': {'source': 'slates'}})
    self.store = artifacts.Artifacts(config, ranker.store.workdir)
    self.store.__dict__['dataset'] = dataclasses.replace(
      ranker.store.dataset, slate_columns=columns
    )
    self.store.__dict__['sids'] = ranker.store.sids
    self.asking = ranker.asking

  def rank(self, histories, candidates, batch_size, features, scores):
    self.given = features, scores
    return [
      ranking_lib.Ranking(
        order=items,
        explanation='',
        explanation_titles='',
        valid=True,
        tokens=1,
        prompt_tokens=1,
      )
      for items in candidates
    ]


def test_numbers_of_records_reach_the_ranker(constrained):
  stub = Scripted(constrained, ('age', 'ctr'))
  records = [
    {**LISTS[0], 'features': FEATURES, 'scores': [3, -1, 0.5, 1e-3]},
    {**LISTS[1], 'features': {'age': [5, 6], 'ctr': [7, 8]}},
  ]
  ranked = rerank.rank_records(stub, records)
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
  lines = ['', json.dumps(record)]
  (answer,) = rerank.rank_lines(Scripted(constrained, columns), lines, 'in')
  assert re.match(f'in:2: .*{message}', answer.record['error'])


def test_a_missing_run_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(assets, 'keep_programs', lambda: None)
  with pytest.raises(FileNotFoundError, match='config.json is missing'):
    rerank.load(tmp_path)


@pytest.mark.parametrize(
  'line',
  [b'{"history": ["\xff"]}', b'[' * 200_000, b'9' * 5000, b'\x80\x04K', '[{'],
)
def test_lines_that_break_parsers_are_named(constrained, line):
  good = b'{"history": [], "candidates": ["i1", "i2"]}'
  stub = Scripted(constrained, ())
  first, broken = rerank.rank_lines(stub, [good, '', line], 'lists.jsonl')
  assert first.record['order'] == ['i1', 'i2']
  assert broken.record['error'].startswith('lists.jsonl:3: ')
