import dataclasses
import shutil

import jax
import numpy as np
import pytest

from gr2_jax import files, sharding
from gr2_jax.lm import io
from gr2_jax.rank import evidence, heads, utilities
from gr2_jax.run import artifacts
from gr2_jax.stages import list_prompts, listwise, sft, sft_rows, sft_validation
from gr2_jax.text import semantic_ids
from gr2_jax.train import loop
from tests.integration import small

TRACE = {
  'user': 2,
  'position': 5,
  'candidates': [1, 2, 3, 4],
  'ranking': [3, 1, 4, 2],
  'explanation': 'Likes drama.',
}


def test_only_the_answer_weighs_and_the_ranking_weighs_more(tmp_path):
  store = small.store(tmp_path)
  made = sft_rows.example(store, TRACE, 0.25, 2.0)
  vocab = store.vocab
  tokens, weights = made['tokens'].tolist(), made['weights']
  fmt = vocab.answer_format()
  start, middle = tokens.index(fmt.open), tokens.index(fmt.mid)
  assert tokens[start - 1] == vocab.token('<|answer|>')
  np.testing.assert_array_equal(weights[:start], 0)
  top = tokens.index(fmt.top)
  np.testing.assert_array_equal(weights[start:top], 0.25)
  np.testing.assert_array_equal(weights[top:], 2.0)
  assert vocab.decode(tokens[start + 1 : top]) == 'Likes drama.'
  cited = semantic_ids.wrap(semantic_ids.write(store.sids[3]))
  assert vocab.decode(tokens[top:middle]) == f' First: {cited}'
  first = vocab.sid_tokens(store.sids[3]).tolist()
  assert tokens[middle + 1 : middle + 3] == first
  assert tokens[-1] == fmt.eos


@pytest.mark.parametrize('lambda_r', [0.0, 1.0, 1.5])
def test_reasoning_must_weigh_less_than_the_ranking(lambda_r):
  with pytest.raises(ValueError, match='lambda_r'):
    sft.SFTConfig(train={}, weights={}, lambda_r=lambda_r)


def test_what_prompts_leave_out_does_not_depend_on_how_often_they_are_made(
  tmp_path,
):
  store = small.store(tmp_path)
  before = sft_rows.truncation(store, [TRACE, TRACE])
  assert before['prompts'] == 2
  for _ in range(3):
    sft_rows.example(store, TRACE, 0.1, 1.0)
  assert sft_rows.truncation(store, [TRACE, TRACE]) == before
  prompter = store.prompter
  history = store.history(TRACE['user'], TRACE['position'])
  assert len(history) > 1 and before['history_items_dropped'] == 0
  # Room for the newest item alone; the history in semantic IDs has its own.
  newest = len(prompter.segments[history[-1]])
  given = sum(len(prompter.segments[item]) for item in history)
  seen = len(prompter.retrieval(history)) - 1
  used = len(prompter.rerank(history, TRACE['candidates'])) - seen
  prompter.cfg = dataclasses.replace(
    prompter.cfg, max_tokens=used - given + newest
  )
  assert sft_rows.truncation(store, [TRACE, TRACE]) == {
    **before,
    'prompts_cut': 2,
    'history_items_dropped': 2 * (len(history) - 1),
  }


def _trained(workdir):
  """Parameters of the LM, and the bytes of the head."""
  mesh = sharding.make_mesh()
  directory = workdir / 'sft' / 'model'
  _, params = io.load(directory, mesh, sharding.TRAIN_RULES)
  return jax.device_get(params), (directory / 'head.json').read_bytes()


@pytest.fixture
def trained(listed):
  """A run with utilities, and its summary."""
  workdir = listed('whole')
  return workdir, sft.run(small.config(), workdir)


def test_utilities_train_with_the_model_and_stand_beside_it(trained):
  workdir, summary = trained
  names = evidence.NAMES
  head, columns = heads.load(workdir / 'sft' / 'model')
  assert columns == names and summary['head'] == heads.describe(head, names)
  lists = artifacts.Artifacts(small.config(), workdir).sft_lists()
  assert summary['lists'] == len(lists) and summary['traces'] == len(lists)
  # What words add is left to RL.
  assert all(own['words'] == 0 for own in head.values())
  records = list(files.read_jsonl(workdir / 'sft' / 'metrics.jsonl'))
  assert [r['step'] for r in records] == [1, 2, 3, 4]
  kinds = {f'nll_direct_{h}' for h in heads.HEADS}
  kinds |= {'nll_explained', 'nll_words', 'nll_distilled', 'nll'}
  assert all(kinds <= set(record) for record in records)
  timing = list(files.read_jsonl(workdir / 'sft' / 'timing.jsonl'))
  assert timing and all(record['lists_per_second'] > 0 for record in timing)
  # Two text rows are drawn a step, now and then of one source.
  assert {'nll/answer', 'nll/next_item'} <= set().union(*records)
  name = 'valid_choice_nll'
  measured = {r['step']: r[name] for r in records if name in r}
  assert set(measured) == {2, 4}
  assert summary['best_step'] == min(measured, key=measured.get)
  assert {'valid_ndcg@5', 'valid_recall@1', 'valid_alone_ndcg@5'} <= set(
    summary
  )


def test_the_head_is_that_of_lists_that_sft_did_not_see(trained, mesh1):
  workdir, summary = trained
  store = artifacts.Artifacts(small.config(), workdir)
  shape, params, _ = listwise.load(
    workdir / 'sft' / 'model', mesh1, sharding.TRAIN_RULES
  )
  unseen, every = store.rl_lists(), store.training_lists()
  start = heads.fit(every.features, every.candidates >= 0, every.target)
  lists = list_prompts.direct_prompts(store, unseen).batch(
    np.arange(len(unseen))
  )
  logps = utilities.sid_logps(
    shape,
    store.vocab.answer_format(),
    params['lm'],
    lists.prompt,
    lists.prompt_valid,
    sids=lists.candidate_sids,
  )
  real = unseen.candidates >= 0
  expected = heads.stack(
    start, np.asarray(logps), unseen.features, real, unseen.target
  )
  # Batches of another size.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    jax.device_get(params['head']),
    expected,
  )
  assert expected['full']['tau'] != start['full']['tau']


def test_without_unseen_lists_the_head_stays_as_trained(listed, caplog):
  config = small.config()
  config.traces = {'sft_share': 1.0}
  workdir = listed('all')
  summary = sft.run(config, workdir)
  assert 'SFT trained on every list' in caplog.text
  head, _ = heads.load(workdir / 'sft' / 'model')
  every = artifacts.Artifacts(config, workdir).training_lists()
  assert summary['lists'] == len(every)
  start = heads.fit(every.features, every.candidates >= 0, every.target)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), head, start)
  # Each weight and temperature learns, at a rate of 3e-3; what words add is
  # left to RL.
  for own in moved.values():
    assert own.pop('words') == 0
  assert all(0 < x < 0.02 for x in jax.tree.leaves(moved))
  # What is exported is what was measured best.
  name = 'valid_choice_nll'
  records = files.read_jsonl(workdir / 'sft' / 'metrics.jsonl')
  best = min(record[name] for record in records if name in record)
  assert summary[name] == pytest.approx(best, rel=1e-5)


def test_the_checkpoint_is_chosen_by_the_rankings(trained, listed, monkeypatch):
  """Of both heads; words, most of the loss, do not count."""
  _, summary = trained
  parts = ('valid_nll', 'valid_alone_nll')
  assert summary['valid_choice_nll'] == pytest.approx(
    sum(summary[x] for x in parts)
  )
  assert summary['valid_explained_nll'] > 0 and summary['valid_words_nll'] > 0
  # The rankings are best at step 2, the words at step 4.
  rounds, explained = iter([(1.0, 3.0), (2.0, 0.5)] * 2), []

  def validation(*args):
    def measure(params):
      direct, behind = next(rounds)
      explained.append(behind)
      return {'valid_nll': direct / 2, 'valid_alone_nll': direct / 2}

    return measure

  def words(loss, rows, mesh):
    assert len(rows) == summary['held_out']
    return lambda params: {'valid_words_nll': explained.pop()}

  monkeypatch.setattr(listwise, 'validation', validation)
  monkeypatch.setattr(sft_validation, '_words', words)
  found = sft.run(small.config(), listed('chosen'))
  assert found['best_step'] == 2


def test_a_killed_run_with_utilities_ends_in_the_same_bits(
  trained, listed, killed_after
):
  whole, summary = trained
  cut = listed('cut')
  with killed_after(loop, '_next_batch', 3):
    sft.run(small.config(), cut)
  resumed = sft.run(small.config(), cut)
  for result in (summary, resumed):
    result.pop('seconds')
  assert resumed == summary
  jax.tree.map(np.testing.assert_array_equal, _trained(whole), _trained(cut))
  texts = [(w / 'sft' / 'metrics.jsonl').read_text() for w in (whole, cut)]
  assert texts[0] == texts[1]


def test_missed_lists_are_labelled_by_the_linear_model(listed):
  store = artifacts.Artifacts(small.config(), listed('labels'))
  lists = store.lists('train')
  missed = lists.take(lists.target < 0)
  assert 0 < len(missed) < len(lists)
  weights = np.linspace(-1, 1, missed.features.shape[-1])
  rows = list_prompts.distilled_rows(store, weights)
  assert len(rows) == len(missed)
  batch = rows.batch(np.array([len(missed) - 1, 0]))
  for share, row in zip(batch.share, (len(missed) - 1, 0), strict=True):
    odds = np.exp(missed.features[row].astype(float) @ weights)
    odds *= missed.candidates[row] >= 0
    # Stored in float32.
    np.testing.assert_allclose(share, odds / odds.sum(), rtol=1e-6)
  sids = store.sids[missed.candidates[0]]
  np.testing.assert_array_equal(batch.lists.candidate_sids[1], sids)
  prompt = store.prompter.retrieval(
    store.history(missed.user[0], missed.position[0])
  )
  assert batch.lists.prompt[1][batch.lists.prompt_valid[1]].tolist() == prompt


def test_where_every_list_holds_its_target_none_is_distilled(
  listed, monkeypatch
):
  store = artifacts.Artifacts(small.config(), listed('hits'))
  hits = store.lists('train').hits()
  monkeypatch.setattr(artifacts.Artifacts, 'lists', lambda self, split: hits)
  weights = np.ones(hits.features.shape[-1])
  assert list_prompts.distilled_rows(store, weights) is None


def test_lists_alone_need_neither_words_nor_text(listed):
  config = small.config()
  config.sft.explained, config.sft.replay, config.sft.distilled = 0, 0.0, 0
  workdir = listed('plain')
  sft.run(config, workdir)
  record = next(files.read_jsonl(workdir / 'sft' / 'metrics.jsonl'))
  assert 'nll_direct_full' in record
  assert not {'nll_words', 'nll_distilled'} & set(record)
  assert not any(name.startswith('nll/') for name in record)


def test_lists_of_training_lose_activations(listed, trained):
  """The first losses, of the same parameters and lists, are others."""
  config = small.config()
  config.sft.train.dropout = 0.3
  workdir = listed('dropped')
  sft.run(config, workdir)
  first, plain = (
    next(files.read_jsonl(path / 'sft' / 'metrics.jsonl'))
    for path in (workdir, trained[0])
  )
  for name in ('nll_direct_full', 'nll_explained', 'nll_words'):
    assert first[name] != pytest.approx(plain[name], rel=1e-4)


def test_the_papers_lists_are_trained_token_by_token(listed):
  config = small.config()
  config.answer.ranking = 'list'
  config.sft.weights = {'answer': 1.0}
  workdir = listed('tokens')
  summary = sft.run(config, workdir)
  assert summary['perplexity'] > 1 and 'head' not in summary
  assert not (workdir / 'sft' / 'model' / 'head.json').exists()


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('weights', {'rank': 1.0}, r"names \['rank'\]"),
    ('lists', 0, 'sft.lists is 0'),
    ('explained', -1, 'sft.explained is -1'),
    ('distilled', -1, 'sft.distilled is -1'),
    ('replay', -0.1, 'sft.replay = -0.1'),
    ('shuffled', 1.5, 'sft.shuffled = 1.5'),
  ],
)
def test_settings_without_sense_are_refused(field, value, message):
  with pytest.raises(ValueError, match=message):
    sft.SFTConfig(**{'train': {}, 'weights': {}, field: value})


def test_traces_of_other_lists_are_refused(listed):
  workdir = listed('other')
  config = small.config()
  # Another share of the lists is SFT's.
  config.traces = {'sft_share': 0.1}
  with pytest.raises(ValueError, match='run the traces stage again'):
    sft.run(config, workdir)


def test_a_single_trace_is_too_few(listed):
  """It would be held out, and nothing would be left to train on."""
  workdir = listed('single')
  given = workdir / 'traces'
  own = shutil.copytree(given.resolve(), workdir / 'own')
  traces = list(files.read_jsonl(own / 'traces.jsonl'))
  files.write_jsonl(own / 'traces.jsonl', traces[:1])
  given.unlink()
  own.rename(given)
  with pytest.raises(ValueError, match='has 1 accepted traces, and SFT needs'):
    sft.run(small.config(), workdir)
