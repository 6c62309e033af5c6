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
  store = small.store(tmp_path)
  (tmp_path / 'practice.jsonl').write_text('')
  context = types.SimpleNamespace(input=lambda stage: tmp_path)
  cfg = sft.SFTConfig(train={}, practice=0.5)
  with pytest.raises(ValueError, match='traces.practice'):
    sft.practice(store, context, cfg)
  files.write_jsonl(tmp_path / 'practice.jsonl', [TRACE])
  made = sft.practice(store, context, cfg)
  np.testing.assert_array_equal(
    made.make(0)['tokens'], sft.example(store, TRACE, cfg)['tokens']
  )
