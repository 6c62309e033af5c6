"""An exported run in transformers: tokenizer, new tokens, greedy answers.

Runs where transformers and torch are installed; see tests/README.md.
"""

import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import config as config_lib
from gr2_jax import files, sharding
from gr2_jax.lm import decoder, hf, io
from gr2_jax.lm.config import LMConfig
from gr2_jax.ranker import export
from gr2_jax.run import pretrained
from tests.integration import small
from tests.text import made

transformers = pytest.importorskip('transformers')
torch = pytest.importorskip('torch')

RULES = sharding.TRAIN_RULES
SHAPES = {
  'qwen3': {},
  'llama': dict(qk_norm=False, tie_embeddings=False),
  'qwen2': dict(qk_norm=False, qkv_bias=True),
}


def _checkpoint(path, mesh, changes):
  shape = LMConfig(
    vocab_size=352, width=32, layers=2, heads=4, kv_heads=2, head_dim=8,
    mlp_dim=48, **changes,
  )  # fmt: skip
  params = decoder.init(shape, mesh, RULES, jax.random.key(1))
  # Large enough for greedy choices to be clear.
  params = jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, params)
  hf.save(path, shape, params)
  made.qwen().save(str(path / 'tokenizer.json'))
  files.write_json(path / 'tokenizer_config.json', {'eos_token': '<|im_end|>'})


@pytest.mark.slow
@pytest.mark.parametrize('family', SHAPES)
@pytest.mark.parametrize('rank', [0, 2])
def test_transformers_goes_on_as_we_do(family, rank, tmp_path, mesh1):
  _checkpoint(tmp_path, mesh1, SHAPES[family])
  config = ml_collections.ConfigDict(
    {
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'lm': {
        'pretrained': str(tmp_path),
        'lora_rank': rank,
        'bf16_matmul': False,
      },
    }
  )
  shape, params, vocab = pretrained.load(config, 3, 16, mesh1, seed=0)
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: x + 0.05 if path[-1].key == 'lora_b' else x, params
  )
  workdir = tmp_path / 'run'
  (workdir / 'sft').mkdir(parents=True)
  config_lib.save(config, workdir / 'config.json')
  small.finish(workdir, 'midtrain', lm=config.lm)
  small.finish(workdir, 'sft', ['midtrain'])
  vocab.save(workdir / 'midtrain' / 'vocab')
  io.save(workdir / 'sft' / 'model', shape, params)
  export.export(workdir, 'sft', tmp_path / 'out', 'float32')

  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'out')
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  text = 'Toy Story (1995) <s_a_3><s_b_15><s_c_0> is'
  ids = tokenizer(text, add_special_tokens=False).input_ids
  assert ids == vocab.encode(text)
  assert model.config.vocab_size == vocab.size
  assert model.generation_config.eos_token_id == vocab.eos
  theirs = model.generate(
    torch.tensor([ids]), do_sample=False, max_new_tokens=24,
    min_new_tokens=24,
  )[0].tolist()  # fmt: skip
  apply = jax.jit(decoder.Decoder(shape).apply)
  ours = list(ids)
  for _ in range(24):
    row = np.zeros((1, len(ids) + 24), np.int32)
    row[0, : len(ours)] = ours
    logits = np.array(apply({'params': params}, row)[0, len(ours) - 1])
    logits[vocab.eos] = -np.inf
    ours.append(int(logits.argmax()))
  assert ours == theirs
  assert len(set(ours[len(ids) :])) > 2
