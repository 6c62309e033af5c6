"""Mid-training over a made-up catalogue, a few steps of each phase."""

import dataclasses

import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.lm import decoder, io
from gr2_jax.run import runner
from gr2_jax.stages import midtrain, midtraining
from gr2_jax.text.vocab import Vocab

PHASE = {'batch_size': 8, 'length': 128, 'ckpt_every': 2, 'log_every': 1}
TASKS = ('next_item', 'item_text', 'persona', 'general_text')


def _config(**weights):
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'split': {}},
      'sid': {'codes': 5},
      'text': {
        'pieces': 400,
        'prompt': {
          'max_candidates': 4,
          'max_tokens': 128,
          'retrieval_items': 5,
          'title_tokens': 12,
          'category_tokens': 8,
        },
      },
      'lm': {
        'width': 16,
        'layers': 1,
        'heads': 2,
        'kv_heads': 2,
        'head_dim': 8,
        'mlp_dim': 16,
        'bf16_matmul': False,
      },
      'midtrain': {
        'weights': weights,
        'new_rows': {'steps': 2, 'lr': 1e-3, 'schedule': 'constant', **PHASE},
        # A rate of zero: what differs afterwards is the first phase's doing.
        'all': {'steps': 2, 'lr': 0.0, **PHASE},
        'tasks': {'stride': 2, 'persona_items': 3, 'description_tokens': 16},
        'eval_examples': 8,
      },
    }
  )


def test_new_rows_train_alone_and_each_task_has_a_perplexity(workdir):
  config = _config(**dict.fromkeys(TASKS, 0.25))
  summary = midtrain.run(config, workdir)
  assert set(summary['perplexity']) == {*TASKS, 'next_item_valid'}
  assert all(1 < p < 2000 for p in summary['perplexity'].values())
  vocab = Vocab.load(workdir / 'midtrain' / 'vocab')
  mesh = sharding.make_mesh()
  shape, params = io.load(
    workdir / 'midtrain' / 'model', mesh, sharding.TRAIN_RULES
  )
  assert shape.vocab_size == vocab.size == summary['vocabulary']
  key = jax.random.key(runner.stage_seed(0, 'midtrain'))
  start = decoder.init(shape, mesh, sharding.TRAIN_RULES, key)
  rows = vocab.text_size
  same = jax.tree.map(lambda a, b: np.array_equal(a, b), start, params)
  table = same.pop('embedding')
  assert not table and all(jax.tree.leaves(same))
  before, after = (np.asarray(p['embedding']) for p in (start, params))
  np.testing.assert_array_equal(before[:rows], after[:rows])
  assert (before[rows:] != after[rows:]).any()


def test_a_task_that_does_not_exist_is_named(workdir):
  with pytest.raises(ValueError, match=r"\['next_word'\]"):
    midtrain.run(_config(next_word=1.0), workdir)


@pytest.mark.parametrize(
  'share, steps', [(1.0, (2, 5)), (0.5, (1, 2)), (0.01, (1, 1))]
)
def test_a_share_of_the_steps(share, steps):
  config = _config(next_item=1.0)
  config.midtrain.all.steps = 5
  job = midtraining.Training(
    config,
    None,
    None,
    None,
    directory=None,
    mesh=None,
    seed=None,
    desc='some',
    policy=None,
    tracking=None,
    share=share,
  )
  assert (job.first.steps, job.phase.steps) == steps
  config.midtrain.new_rows.steps = 0
  assert dataclasses.replace(job).first.steps == 0
