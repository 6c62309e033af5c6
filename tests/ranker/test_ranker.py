"""Lists ranked by utilities: the three modes, and what they depend on."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.data import stored
from gr2_jax.lm import decoder, io
from gr2_jax.rank import evidence, heads, sasrec_lists, sasrec_model
from gr2_jax.ranker import ranker, ranking
from gr2_jax.run import artifacts
from gr2_jax.train import timing
from tests.integration import small

NAMES = evidence.NAMES
HISTORIES = [np.array(h) for h in ([1, 2, 3], [], [7], [5, 11, 0, 2, 9])]
CANDIDATES = [
  np.array(c) for c in ([4, 5, 6, 7], [9, 8], [3, 0, 19], [12, 13, 14, 15])
]
WEIGHTS = {'popularity': 0.3, 'follow': 0.5, 'log_rank': 0.2, 'alone': 0.4}


def _with(given, **weights):
  """The same ranker with another head."""
  tau, words = weights.pop('tau', 0.0), weights.pop('words', 0.0)
  made = small.head(tau, weights, given.evidence.names, words)
  params = given.params | {'head': sharding.replicate(given.mesh, made)}
  return dataclasses.replace(given, params=params)


@pytest.fixture(scope='module')
def explained(tmp_path_factory, mesh1):
  head = small.head(1.0, WEIGHTS, NAMES, words=0.5)
  return small.make_ranker(tmp_path_factory.mktemp('run'), mesh1, given=head)


@pytest.fixture(scope='module')
def direct(explained):
  return dataclasses.replace(explained, mode=ranking.DIRECT)


@pytest.fixture(scope='module')
def ranked(explained):
  return explained.rank(HISTORIES, CANDIDATES)


def test_explained_answers_end_with_the_item_that_is_ranked_first(
  ranked, explained
):
  citations = explained.store.citations
  for items, found in zip(CANDIDATES, ranked, strict=True):
    assert found.valid and found.tokens > 0
    by_utility = items[np.argsort(-found.utilities, kind='stable')]
    np.testing.assert_array_equal(found.order, by_utility)
    assert sorted(found.alone) == sorted(items)
    named = citations.find(found.explanation)
    assert named[-1] == found.order[0]
    title = explained.store.title(found.order[0])
    assert found.explanation_titles.endswith(f'First: {title}')


def test_direct_answers_write_nothing_and_read_less(ranked, direct):
  for items, found, longer in zip(
    CANDIDATES, direct.rank(HISTORIES, CANDIDATES), ranked, strict=True
  ):
    assert found.valid and found.tokens == 0 and found.explanation == ''
    assert len(found.utilities) == len(items)
    by_utility = items[np.argsort(-found.utilities, kind='stable')]
    np.testing.assert_array_equal(found.order, by_utility)
    assert found.prompt_tokens < longer.prompt_tokens


def test_lists_token_by_token_need_no_utilities(explained):
  listed = dataclasses.replace(explained, mode=ranking.LIST)
  without = dataclasses.replace(
    explained, params=explained.params | {'head': None}
  )
  for by in (listed, without):
    assert not by.by_utilities
    for items, found in zip(
      CANDIDATES, by.rank(HISTORIES, CANDIDATES), strict=True
    ):
      assert found.valid and sorted(found.order) == sorted(items)
      assert found.utilities is None and found.alone is None


def test_likelihood_is_that_of_the_retrieval_prompt(direct):
  """tau log P(codes | prompt) by one plain pass for each candidate."""
  alone = _with(direct, tau=0.7)
  store, model = direct.store, decoder.Decoder(direct.config)
  fmt = store.vocab.answer_format()
  found = alone.rank(HISTORIES[:1], CANDIDATES[:1])[0]
  prompt = store.prompter.retrieval(HISTORIES[0])
  for item, utility in zip(CANDIDATES[0], found.utilities, strict=True):
    codes = store.vocab.sid_tokens(store.sids[item]).tolist()
    tokens = np.array([[*prompt, *codes]], np.int32)
    places = np.arange(tokens.shape[1], dtype=np.int32)[None]
    params = {'params': direct.params['lm']}
    with sharding.use(direct.mesh, sharding.DECODE_RULES):
      logits = np.asarray(model.apply(params, tokens, places), np.float64)[0]
    expected = 0.0
    for level, code in enumerate(codes):
      begin = fmt.sid_offset + level * fmt.codes
      own = logits[len(prompt) + level - 1, begin : begin + fmt.codes]
      expected += own[code - begin] - np.log(np.exp(own).sum())
    assert utility == pytest.approx(0.7 * expected, abs=1e-4)


@pytest.mark.parametrize('mode', [ranking.DIRECT, ranking.EXPLAINED])
def test_evidence_is_weighed_by_the_head_of_its_own(explained, mode):
  """Without the likelihood: w . f, and the incoming order alone."""
  by = dataclasses.replace(explained, mode=mode)
  by = _with(by, popularity=2.0, follow=-1.0, alone=1.0)
  padded = np.full((4, small.K), -1)
  for row, items in zip(padded, CANDIDATES, strict=True):
    row[: len(items)] = items
  columns = by.evidence.columns(HISTORIES, padded, np.zeros(padded.shape))
  weights = np.array([0, 0, 2.0, 0, -1.0])
  for row, found, items in zip(
    columns, by.rank(HISTORIES, CANDIDATES), CANDIDATES, strict=True
  ):
    expected = (row @ weights)[: len(items)]
    np.testing.assert_allclose(found.utilities, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.alone, items)


def test_words_come_on_top_of_what_the_history_says(explained, direct):
  """Without their term both modes have the same utilities."""
  one, other = (
    np.concatenate([r.utilities for r in by.rank(HISTORIES, CANDIDATES)])
    for by in (
      _with(explained, tau=0.7, **WEIGHTS),
      _with(direct, tau=0.7, words=9.0, **WEIGHTS),
    )
  )
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_histories_read_once_score_as_the_direct_mode_does(direct):
  by = _with(direct, tau=0.7, **WEIGHTS)
  users = by.encode(HISTORIES)
  for row, found in zip(
    users.score(CANDIDATES), by.rank(HISTORIES, CANDIDATES), strict=True
  ):
    np.testing.assert_allclose(row, found.utilities, rtol=1e-4, atol=1e-5)
  # Others of the same users; the likelihood of each is what it was.
  users = _with(direct, tau=1.0).encode(HISTORIES)
  fewer = users.score([items[1:] for items in CANDIDATES])
  for row, found in zip(users.score(CANDIDATES), fewer, strict=True):
    np.testing.assert_allclose(row[1:], found, rtol=1e-4)
  with pytest.raises(ValueError, match='3 lists for 4 histories'):
    users.score(CANDIDATES[:3])
  with pytest.raises(ValueError, match=r"answer\.ranking='list'"):
    dataclasses.replace(direct, mode=ranking.LIST).encode(HISTORIES)


def test_direct_orders_do_not_depend_on_the_incoming_order(direct):
  rng = np.random.default_rng(0)
  turns = [rng.permutation(4) for _ in range(8)]
  columns = rng.normal(size=(4, len(NAMES))).astype(np.float32)
  items = CANDIDATES[0]
  found = direct.rank(
    [HISTORIES[0]] * 8,
    [items[turn] for turn in turns],
    columns=np.stack([columns[turn] for turn in turns]),
  )
  for turn, each in zip(turns, found, strict=True):
    np.testing.assert_array_equal(each.order, found[0].order)
    np.testing.assert_allclose(
      each.utilities[np.argsort(turn)],
      found[0].utilities[np.argsort(turns[0])],
      rtol=1e-5,
    )


def test_what_prompts_show_in_another_order_keeps_its_columns(explained):
  """The probe of the report: `shown` turns the prompt, nothing else."""
  by = _with(explained, log_rank=1.0)
  turned = [items[::-1] for items in CANDIDATES]
  found = by.rank(HISTORIES, CANDIDATES, shown=turned)
  for items, each in zip(CANDIDATES, found, strict=True):
    np.testing.assert_array_equal(each.order, items)
  # What stands behind words depends on the prompt, what follows the history
  # does not.
  for name, least in (('words', 1e-4), ('tau', 0.0)):
    by = _with(explained, **{name: 1.0})
    plain, shuffled = (
      np.concatenate([r.utilities for r in by.rank(*given, **shown)])
      for given in [(HISTORIES, CANDIDATES)]
      for shown in ({}, {'shown': turned})
    )
    gap = np.abs(plain - shuffled).max()
    assert gap > least if least else gap < 1e-5


@pytest.mark.parametrize('mode', ranking.MODES)
def test_batch_size_changes_nothing(explained, mode):
  by = dataclasses.replace(explained, mode=mode)
  whole = by.rank(HISTORIES, CANDIDATES)
  for one, other in zip(
    whole, by.rank(HISTORIES, CANDIDATES, batch_size=1), strict=True
  ):
    np.testing.assert_array_equal(one.order, other.order)
    assert one.explanation == other.explanation
    assert (one.tokens, one.prompt_tokens) == (
      other.tokens,
      other.prompt_tokens,
    )
    if one.utilities is not None:
      np.testing.assert_allclose(
        one.utilities, other.utilities, rtol=1e-4, atol=1e-5
      )


def test_direct_lists_have_any_length(direct, explained):
  """A candidate's likelihood does not depend on the others."""
  by = _with(direct, tau=1.0)
  many = np.arange(4, 13)
  assert len(many) > small.K
  (whole,) = by.rank(HISTORIES[:1], [many])
  assert sorted(whole.order) == many.tolist()
  (few,) = by.rank(HISTORIES[:1], [many[2:4]])
  np.testing.assert_allclose(whole.utilities[2:4], few.utilities, rtol=1e-4)
  with pytest.raises(ValueError, match='List 0: 9 candidates'):
    explained.rank(HISTORIES[:1], [many])
  with pytest.raises(ValueError, match='List 0 has no candidate'):
    direct.rank(HISTORIES[:1], [many[:0]])


@pytest.mark.parametrize('mode', ranking.MODES)
def test_nothing_is_compiled_after_warming_up(explained, mode):
  """Any number of lists, histories and candidates of any length."""
  by = _with_sasrec(dataclasses.replace(explained, mode=mode))
  direct = mode == ranking.DIRECT
  # What writes answers takes long to compile.
  size, longest = (2, 5) if direct else (1, small.K)
  by.warm_up(size, longest)
  counter, rng = timing.compilations(), np.random.default_rng(0)
  before, shapes = counter.count, set()
  for lists in (1, 2, 3):
    histories = [rng.integers(0, 20, rng.integers(0, 30)) for _ in range(lists)]
    candidates = [
      rng.permutation(20)[: rng.integers(1, longest + 1)] for _ in range(lists)
    ]
    for length in (0, 1, 9, 30):
      histories[0] = np.arange(length) % 20
      by.rank(histories, candidates, size)
      shapes.add((lists, max(map(len, histories))))
  assert counter.count == before and len(shapes) > 4
  # The counter counts: a batch that was not warmed up for.
  by.rank(histories * 2, candidates * 2, 2 * size)
  assert counter.count > before


def test_histories_read_once_compile_nothing_after_warming_up(direct):
  by = _with_sasrec(direct)
  by.warm_up(2, 5, encode=True)
  counter, rng = timing.compilations(), np.random.default_rng(0)
  before = counter.count
  for number, length in itertools.product((1, 2), (0, 1, 9, 30)):
    users = by.encode([np.arange(length) % 20] * number)
    for count in (1, 4, 5):
      lists = [rng.permutation(20)[:count] for _ in range(number)]
      assert [len(row) for row in users.score(lists)] == [count] * number
  assert counter.count == before
  # The counter counts: more histories than were warmed up for.
  by.encode(HISTORIES).score(CANDIDATES)
  assert counter.count > before


def _with_sasrec(given):
  """The same ranker with the column of a SASRec that was never trained."""
  if not given.by_utilities:
    return given
  network = sasrec_model.SASRec(
    sasrec_model.NetworkConfig(20, 8, 1, 1, 8, max_length=12)
  )
  example = np.zeros((1, 2), np.int32)
  params = network.init(jax.random.key(0), example, example, example)['params']
  model = sasrec_lists.Model(
    network.config,
    sharding.replicate(given.mesh, nn.meta.unbox(params)),
    given.mesh,
  )
  store = given.store
  made = evidence.Evidence(
    store.dataset, store.splits, evidence.EvidenceConfig(), model
  )
  head = small.head(1.0, {'sasrec': 1.0}, made.names)
  params = given.params | {'head': sharding.replicate(given.mesh, head)}
  return dataclasses.replace(given, params=params, known=made)


@pytest.mark.parametrize('mode', ranking.MODES)
def test_a_list_of_one_is_its_ranking(explained, mode):
  by = dataclasses.replace(explained, mode=mode)
  (found,) = by.rank(HISTORIES[:1], [np.array([7])])
  assert found.valid and found.order.tolist() == [7]


def test_scores_and_columns_that_lists_bring_are_used(direct):
  store = artifacts.Artifacts(
    direct.store.config.copy_and_resolve_references(), direct.store.workdir
  )
  store.config.candidates.source = 'slates'
  store.__dict__.update(direct.store.__dict__)
  store.__dict__['config'] = ml_collections.ConfigDict(
    {**store.config.to_dict(), 'candidates': {'source': 'slates'}}
  )
  store.__dict__['dataset'] = dataclasses.replace(
    store.dataset, slate_columns=('ctr', 'age')
  )
  own = dataclasses.replace(direct, store=store)
  assert own.evidence.names == (*NAMES, 'ctr', 'age')
  by_age = _with(own, age=1.0)
  features = [
    np.float32([[9, 1], [5, 4], [6, 3], [7, 2]]),
    np.float32([[1, 1], [0, 2]]),
  ]
  found = by_age.rank(HISTORIES[:2], CANDIDATES[:2], features=features)
  assert found[0].order.tolist() == [5, 6, 7, 4]
  assert found[1].order.tolist() == [8, 9]
  by_score = _with(own, score=1.0)
  scores = [np.float32([0.1, 0.4, 0.2, 0.3]), None]
  found = by_score.rank(
    HISTORIES[:2], CANDIDATES[:2], features=features, scores=scores
  )
  assert found[0].order.tolist() == [5, 7, 6, 4]
  # Of the second nothing is known: the incoming order.
  assert found[1].order.tolist() == [9, 8]
  with pytest.raises(ValueError, match=r"columns \['ctr', 'age'\]"):
    by_age.rank(HISTORIES[:2], CANDIDATES[:2])


@pytest.mark.parametrize('name', ['features', 'scores', 'shown'])
def test_what_does_not_go_with_the_lists_is_refused(direct, name):
  with pytest.raises(ValueError, match=f'1 {name} for 2 lists'):
    direct.rank(HISTORIES[:2], CANDIDATES[:2], **{name: CANDIDATES[:1]})
  with pytest.raises(ValueError, match='1 histories for 2 lists'):
    direct.rank(HISTORIES[:1], CANDIDATES[:2])
  assert direct.rank([], []) == []


@pytest.fixture
def saved(explained, tmp_path, monkeypatch):
  """The directory of a finished run with the model of `explained`."""
  store = explained.store
  monkeypatch.setattr(stored, 'load', lambda directory: small.dataset())
  directory = tmp_path / 'rl' / 'model'
  io.save(directory, explained.config, explained.params['lm'])
  heads.save(directory, small.head(1.0, WEIGHTS, NAMES, words=0.5), NAMES)
  (tmp_path / 'sid').mkdir()
  np.savez(tmp_path / 'sid' / 'sids.npz', sids=store.sids)
  store.vocab.save(tmp_path / 'midtrain' / 'vocab')
  config = ml_collections.ConfigDict(
    {
      **store.config.to_dict(),
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'rl': {
        'max_new_tokens': 32,
        'explanation_tokens': 6,
        'constrain': True,
      },
    }
  )
  _finish(tmp_path, config)
  return tmp_path


def _finish(run, config):
  config_lib.save(config, run / 'config.json')
  small.finish(run, 'data', data=config.data)
  small.finish(run, 'sid', ['data'])
  small.finish(run, 'midtrain', ['data', 'sid'], text=config.text)
  small.finish(run, 'candidates', ['midtrain'], candidates=config.candidates)
  small.finish(run, 'rl', ['candidates'], text=config.text, rl=config.rl)


def test_a_saved_ranker_answers_as_it_did(saved, ranked, explained):
  loaded = ranker.load(saved, mesh=explained.mesh)
  for one, other in zip(
    ranked, loaded.rank(HISTORIES, CANDIDATES), strict=True
  ):
    np.testing.assert_array_equal(one.order, other.order)
    np.testing.assert_array_equal(one.utilities, other.utilities)
    assert one.explanation == other.explanation


def test_a_later_config_changes_no_answer(saved, ranked, explained):
  config = config_lib.load(saved / 'config.json')
  config.rl.explanation_tokens = 1
  config.text.prompt.max_candidates = 2
  config.candidates.source = 'slates'
  config_lib.save(config, saved / 'config.json')
  loaded = ranker.load(saved, mesh=explained.mesh)
  assert loaded.answer == explained.answer
  again = loaded.rank(HISTORIES, CANDIDATES)
  for one, other in zip(ranked, again, strict=True):
    np.testing.assert_array_equal(one.order, other.order)
    assert one.explanation == other.explanation


def test_the_model_of_the_second_round_answers_directly(saved, explained):
  (saved / 'direct').mkdir()
  (saved / 'rl' / 'model').rename(saved / 'direct' / 'model')
  small.finish(saved, 'direct', ['rl'])
  loaded = ranker.load(saved, 'direct', explained.mesh)
  assert loaded.mode == ranking.DIRECT
  loaded = ranker.load(saved, 'direct', explained.mesh, ranking.LIST)
  assert loaded.mode == ranking.LIST


def test_loading_tells_what_is_wrong(saved, explained):
  mesh = explained.mesh
  with pytest.raises(ValueError, match="model='best' is unknown"):
    ranker.load(saved, 'best', mesh=mesh)
  with pytest.raises(FileNotFoundError, match=r"the run has \['rl'\]"):
    ranker.load(saved, 'sft', mesh=mesh)
  with pytest.raises(ValueError, match="mode='fast' is unknown"):
    ranker.load(saved, mesh=mesh, mode='fast')
  config = config_lib.load(saved / 'config.json')
  config.rl.constrain = False
  _finish(saved, config)
  # Utilities need no constraint; a list without words does.
  assert ranker.load(saved, mesh=mesh, mode=ranking.DIRECT).by_utilities
  (saved / 'rl' / 'model' / 'head.json').unlink()
  assert not ranker.load(saved, mesh=mesh).by_utilities
  with pytest.raises(ValueError, match=r'rl\.constrain'):
    ranker.load(saved, mesh=mesh, mode=ranking.DIRECT)
