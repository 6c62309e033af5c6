"""The start from a pretrained model, its training, and its export."""

import shutil

import jax
import ml_collections
import numpy as np
import pytest
import tokenizers

from gr2_jax import config as config_lib
from gr2_jax import files, sharding
from gr2_jax.lm import decoder, hf, io, lora
from gr2_jax.lm.config import LMConfig
from gr2_jax.ranker import export
from gr2_jax.run import pretrained
from gr2_jax.stages import midtrain
from gr2_jax.text.vocab import Vocab
from tests.integration import small
from tests.text import made

PHASE = {'batch_size': 8, 'length': 160, 'ckpt_every': 2, 'log_every': 1}
SHAPE = LMConfig(
  vocab_size=352,  # More rows than the tokenizer has ids.
  width=16,
  layers=2,
  heads=2,
  kv_heads=1,
  head_dim=8,
  mlp_dim=16,
)
RULES = sharding.TRAIN_RULES


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  path = tmp_path_factory.mktemp('checkpoint')
  mesh = sharding.make_mesh()
  params = decoder.init(SHAPE, mesh, RULES, jax.random.key(7))
  hf.save(path, SHAPE, params)
  made.qwen().save(str(path / 'tokenizer.json'))
  files.write_json(
    path / 'tokenizer_config.json',
    {'eos_token': '<|im_end|>', 'pad_token': '<|endoftext|>'},
  )
  return path


def _config(checkpoint, **lm):
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': 2, 'fsdp': 2, 'tensor': 2},
      'data': {'split': {}},
      'sid': {'codes': 5},
      'text': {
        'prompt': {
          'max_candidates': 4,
          'max_tokens': 160,
          'retrieval_items': 5,
          'title_tokens': 12,
          'category_tokens': 8,
        },
      },
      'lm': {
        'pretrained': str(checkpoint),
        'scan': True,
        'bf16_matmul': False,
        **lm,
      },
      'midtrain': {
        'weights': {'next_item': 0.5, 'item_text': 0.5},
        'new_rows': {'steps': 2, 'lr': 1e-2, 'schedule': 'constant', **PHASE},
        'all': {'steps': 2, 'lr': 1e-2, **PHASE},
        'tasks': {'stride': 2, 'persona_items': 3, 'description_tokens': 16},
        'eval_examples': 8,
      },
    }
  )


def _run(config, workdir):
  config_lib.save(config, workdir / 'config.json')
  small.finish(workdir, 'data', data=config.data)
  small.finish(workdir, 'sid', ['data'], sid=config.sid)
  midtrain.run(config, workdir)
  mesh = sharding.make_mesh(**config.mesh)
  vocab = Vocab.load(workdir / 'midtrain' / 'vocab')
  return vocab, *io.load(workdir / 'midtrain' / 'model', mesh, RULES)


def test_the_warm_up_leaves_all_but_the_new_rows(checkpoint, workdir):
  config = _config(checkpoint)
  # A rate of zero: what differs afterwards is the warm-up's doing.
  config.midtrain.all.lr = 0.0
  vocab, shape, params = _run(config, workdir)
  mesh = sharding.make_mesh(**config.mesh)
  _, start = hf.load(checkpoint, mesh, scan=True)
  rows = vocab.text_size
  assert rows < SHAPE.vocab_size < vocab.size == shape.vocab_size
  assert vocab.sid_offset > rows and vocab.size % 64 == 0
  table, old = params.pop('embedding'), start.pop('embedding')
  bits = lambda x: np.asarray(x).view(np.int32)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(bits(a), bits(b)), params, start
  )
  np.testing.assert_array_equal(bits(table)[:rows], bits(old)[:rows])
  used = np.asarray(table)[vocab.sid_offset : vocab.sid_offset + 15]
  spread = np.asarray(old)[:rows].std()
  # Two steps of 1e-2 beside a draw of a tenth of the spread of 0.02.
  assert np.abs(used - np.asarray(old)[:rows].mean(0)).max() > spread / 4


def test_lora_trains_itself_and_the_new_rows(checkpoint, workdir, tmp_path):
  config = _config(
    checkpoint, lora_rank=2, lora_alpha=4.0, param_dtype='bfloat16'
  )
  vocab, shape, params = _run(config, workdir)
  assert shape.lora_rank == 2 and shape.param_dtype == 'bfloat16'
  mesh = sharding.make_mesh(**config.mesh)
  _, start = hf.load(checkpoint, mesh, scan=True, param_dtype='bfloat16')
  kept, changed = {}, {}
  for path, x in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path)
    (changed if path[-1].key in lora.NAMES else kept)[name] = np.asarray(x)
  assert len(changed) == 2 * 7
  assert all(np.abs(x).max() > 0 for x in changed.values())
  for path, x in jax.tree_util.tree_leaves_with_path(start):
    name, x = jax.tree_util.keystr(path), np.asarray(x)
    if name == "['embedding']":
      table, rows = kept[name], vocab.text_size
      np.testing.assert_array_equal(table[:rows], x[:rows])
    else:
      np.testing.assert_array_equal(kept[name], x)
  export.export(workdir, 'midtrain', tmp_path / 'out', 'float32')
  found, merged = hf.load(tmp_path / 'out', mesh, scan=True)
  assert found.vocab_size == vocab.size and found.lora_rank == 0
  tokens = np.arange(16).reshape(8, 2)
  logits = lambda config, params: decoder.Decoder(config).apply(
    {'params': params}, tokens
  )
  # The kernel with its update is rounded to bfloat16 once, in the export.
  np.testing.assert_allclose(
    logits(found, merged), logits(shape, params), rtol=0, atol=2e-2
  )
  tokenizer = tokenizers.Tokenizer.from_file(
    str(tmp_path / 'out' / 'tokenizer.json')
  )
  text = 'Film 3 <s_a_1><s_b_4>'
  assert tokenizer.encode(text, add_special_tokens=False).ids == vocab.encode(
    text
  )
  raw = files.read_json(tmp_path / 'out' / 'generation_config.json')
  assert raw['eos_token_id'] == vocab.eos


def test_sizes_beside_a_checkpoint_are_refused(checkpoint, workdir):
  with pytest.raises(ValueError, match=r'lm\.width = 32 .*checkpoint fixes'):
    midtrain.run(_config(checkpoint, width=32), workdir)


def test_a_checkpoint_that_is_not_there_is_named(workdir):
  with pytest.raises(FileNotFoundError, match='no/model'):
    midtrain.run(_config('no/model'), workdir)


def test_ids_beyond_the_table_are_refused(checkpoint, workdir, tmp_path):
  shutil.copytree(checkpoint, tmp_path / 'grown')
  more = made.qwen()
  more.add_special_tokens([f'<|new_{i}|>' for i in range(20)])
  more.save(str(tmp_path / 'grown' / 'tokenizer.json'))
  with pytest.raises(ValueError, match='has only 352 rows.*resize_token'):
    midtrain.run(_config(tmp_path / 'grown'), workdir)


def test_another_checkpoint_is_another_run(checkpoint, tmp_path):
  config = _config(checkpoint)
  first = pretrained.fingerprint(config)
  for path in checkpoint.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  config.lm.pretrained = str(tmp_path)
  assert pretrained.fingerprint(config) == first
  raw = files.read_json(tmp_path / 'config.json')
  files.write_json(tmp_path / 'config.json', raw | {'rope_theta': 5e5})
  assert pretrained.fingerprint(config) != first
  config.lm = {'width': 16}
  assert pretrained.fingerprint(config) == ''
