import dataclasses
import types

import numpy as np
import pytest
import small

from gr2_jax import files
from gr2_jax.stages import sft

TRACE = {
  'user': 2,
  'position': 5,
  'candidates': [1, 2, 3, 4],
  'ranking': [3, 1, 4, 2],
  'explanation': 'Likes drama.',
}


def test_only_the_answer_weighs_and_the_ranking_weighs_more(tmp_path):
  store = small.store(tmp_path)
  cfg = sft.SFTConfig(train={}, lambda_r=0.25, lambda_o=2.0)
  made = sft.example(store, TRACE, cfg)
  vocab = store.vocab
  tokens, weights = made['tokens'].tolist(), made['weights']
  fmt = vocab.answer_format()
  start, middle = tokens.index(fmt.open), tokens.index(fmt.mid)
  assert tokens[start - 1] == vocab.token('<|answer|>')
  np.testing.assert_array_equal(weights[:start], 0)
  np.testing.assert_array_equal(weights[start:middle], 0.25)
  np.testing.assert_array_equal(weights[middle:], 2.0)
  explained = vocab.decode(tokens[start + 1 : middle])
  assert explained == 'Likes drama.'
  first = vocab.sid_tokens(store.sids[3]).tolist()
  assert tokens[middle + 1 : middle + 3] == first
  assert tokens[-1] == fmt.eos


@pytest.mark.parametrize('lambda_r', [0.0, 1.0, 1.5])
def test_reasoning_must_weigh_less_than_the_ranking(lambda_r):
  with pytest.raises(ValueError, match='lambda_r'):
    sft.SFTConfig(train={}, lambda_r=lambda_r)


def test_practice_is_a_share_of_the_rows():
  with pytest.raises(ValueError, match='practice'):
    sft.SFTConfig(train={}, practice=1.0)


def test_practice_that_is_missing_is_named(tmp_path):
  (tmp_path / 'practice.jsonl').write_text('')
  context = types.SimpleNamespace(input=lambda stage: tmp_path)
  cfg = sft.SFTConfig(train={}, practice=0.5)
  with pytest.raises(ValueError, match='traces.practice'):
    sft.practice(context, cfg)
  files.write_jsonl(tmp_path / 'practice.jsonl', [TRACE])
  assert sft.practice(context, cfg) == [TRACE]
  assert sft.practice(context, sft.SFTConfig(train={})) == []


def test_what_prompts_leave_out_does_not_depend_on_how_often_they_are_made(
  tmp_path,
):
  store, cfg = small.store(tmp_path), sft.SFTConfig(train={})
  before = sft.truncation(store, [TRACE, TRACE])
  assert before['prompts'] == 2
  for _ in range(3):
    sft.example(store, TRACE, cfg)
  assert sft.truncation(store, [TRACE, TRACE]) == before
  prompter = store.prompter
  history = store.history(TRACE['user'], TRACE['position'])
  assert len(history) > 1 and before['history_items_dropped'] == 0
  # Room for the newest item alone.
  newest = len(prompter.segments[history[-1]])
  given = sum(len(prompter.segments[item]) for item in history)
  used = len(prompter.rerank(history, TRACE['candidates']))
  prompter.cfg = dataclasses.replace(
    prompter.cfg, max_tokens=used - given + newest
  )
  assert sft.truncation(store, [TRACE, TRACE]) == {
    **before,
    'prompts_cut': 2,
    'history_items_dropped': 2 * (len(history) - 1),
  }
