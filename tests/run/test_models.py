"""The model of a config: known without its weights as it will be made."""

import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import files, sharding
from gr2_jax.lm import decoder, hf
from gr2_jax.lm.config import LMConfig
from gr2_jax.run import models
from gr2_jax.text import wording
from gr2_jax.text.vocab import Vocab
from tests.integration import small
from tests.text import made

SIDS = 2, 5
SIZES = {
  'width': 16,
  'layers': 1,
  'heads': 2,
  'kv_heads': 1,
  'head_dim': 8,
  'mlp_dim': 16,
}


def _config(**lm):
  return ml_collections.ConfigDict(
    {
      'sid': {'levels': SIDS[0], 'codes': SIDS[1]},
      'text': {'pieces': 400},
      'lm': lm,
    }
  )


def test_a_model_from_scratch_is_as_it_was_planned(mesh1):
  config = _config(**SIZES)
  shape, vocab = models.shape(config)
  lines = wording.corpus(small.dataset().items)
  made_shape, params, trained = models.start(
    config, SIDS, mesh1, 3, lambda: Vocab.train(lines, 400, *SIDS)
  )
  assert shape == made_shape and shape.width == 16
  assert vocab.size == trained.size == shape.vocab_size
  assert vocab.sid_offset == trained.sid_offset
  want = decoder.init(shape, mesh1, sharding.TRAIN_RULES, jax.random.key(3))
  jax.tree.map(np.testing.assert_array_equal, params, want)


def test_a_pretrained_model_is_as_it_was_planned(mesh1, tmp_path):
  given = LMConfig(vocab_size=352, **SIZES)
  rules = sharding.TRAIN_RULES
  hf.save(tmp_path, given, decoder.init(given, mesh1, rules, jax.random.key(7)))
  made.qwen().save(str(tmp_path / 'tokenizer.json'))
  files.write_json(
    tmp_path / 'tokenizer_config.json',
    {'eos_token': '<|im_end|>', 'pad_token': '<|endoftext|>'},
  )
  config = _config(pretrained=str(tmp_path), lora_rank=2, lora_alpha=4.0)
  shape, vocab = models.shape(config)
  made_shape, params, read = models.start(config, SIDS, mesh1, 0, None)
  assert shape == made_shape and shape.lora_rank == 2
  assert vocab.size == read.size == shape.vocab_size > 352
  assert len(params['embedding']) == shape.vocab_size


def test_a_model_that_is_not_known_is_named():
  config = _config(pretrained='somewhere/Qwen9-1B')
  with pytest.raises(FileNotFoundError, match='Qwen9-1B.* is no directory'):
    models.shape(config)
