"""A phase of training: dropout, shards, other meshes; bit-exact resumption."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from absl import flags

from gr2_jax import files, sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig
from gr2_jax.run import phase as phase_lib
from gr2_jax.run import training
from gr2_jax.text import tasks
from gr2_jax.train import loop

SHAPE = LMConfig(16, 1, 2, 1, 8, mlp_dim=16, vocab_size=32)
PHASE = phase_lib.TrainConfig(
  steps=5, batch_size=4, length=16, lr=1e-2, microbatches=2, ckpt_every=2,
  dropout=0.3,
)  # fmt: skip


def _example(index):
  tokens = np.random.default_rng(index).integers(0, 32, 12).astype(np.int32)
  weights = np.ones(12, np.float32)
  weights[0] = 0
  return {'tokens': tokens, 'weights': weights}


def _train(directory, mesh, phase=PHASE, shape=SHAPE, seed=0, evaluate=None):
  params = decoder.init(shape, mesh, sharding.TRAIN_RULES, jax.random.key(0))
  source = tasks.Examples('it', 50, _example)
  trained = training.train(
    phase, shape, params, {'it': source}, {'it': 1.0}, directory=directory,
    mesh=mesh, seed=seed, desc='test', evaluate=evaluate,
  )  # fmt: skip
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(trained)])


def test_dropout_resumes_bit_for_bit(mesh1, tmp_path, killed_after):
  whole = _train(tmp_path / 'whole', mesh1)
  plain = dataclasses.replace(PHASE, dropout=0.0)
  assert not np.array_equal(_train(tmp_path / 'plain', mesh1, plain), whole)
  with killed_after(loop, '_next_batch', 3):
    _train(tmp_path / 'cut', mesh1)
  np.testing.assert_array_equal(_train(tmp_path / 'cut', mesh1), whole)


def test_dropout_of_the_shape_is_refused(mesh1, tmp_path):
  shape = dataclasses.replace(SHAPE, dropout=0.1)
  with pytest.raises(ValueError, match='lm.dropout = 0.1'):
    _train(tmp_path, mesh1, shape=shape)


@pytest.mark.slow  # Three programs, two of them for eight devices.
def test_a_run_goes_on_on_other_meshes(mesh1, tmp_path, killed_after):
  """Saved by one device, continued by eight, and by four times two."""
  phase = dataclasses.replace(
    PHASE, steps=6, batch_size=8, microbatches=1, dropout=0.0, log_every=1
  )
  losses = lambda name: [
    record['loss'] for record in files.read_jsonl(tmp_path / name)
  ]
  _train(tmp_path / 'whole', mesh1, phase)
  want = losses('whole/metrics.jsonl')
  with killed_after(loop, '_next_batch', 3):
    _train(tmp_path / 'cut', mesh1, phase)
  for sizes in ((8, 1, 1), (4, 2, 1)):
    directory = tmp_path / f'mesh_{sizes[1]}'
    shutil.copytree(tmp_path / 'cut', directory)
    _train(directory, sharding.make_mesh(*sizes), phase)
    found = losses(directory / 'metrics.jsonl')
    assert found[:2] == want[:2]
    # Sums in another order, over four updates.
    np.testing.assert_allclose(found[2:], want[2:], rtol=1e-4)


def test_the_best_validation_comes_out_where_that_is_wanted(mesh1, tmp_path):
  seen = {}

  def evaluate(state):
    leaves = [np.ravel(x) for x in jax.tree.leaves(state.params)]
    seen[int(state.step)] = np.concatenate(leaves)
    # Steps 2, 4 and 5 are validated: better once, then worse.
    return {'valid_nll': {2: 3.0, 4: 1.0, 5: 2.0}[int(state.step)]}

  for keep, want in ((True, 4), (False, 5)):
    phase = dataclasses.replace(PHASE, keep_best=keep)
    directory = tmp_path / str(keep)
    found = _train(directory, mesh1, phase, evaluate=evaluate)
    np.testing.assert_array_equal(found, seen[want])
    assert training.best_step(directory) == {'best_step': want}
  assert not np.array_equal(seen[4], seen[5])


def test_without_validation_the_last_step_comes_out(mesh1, tmp_path):
  _train(tmp_path, mesh1)
  assert training.best_step(tmp_path) == {'best_step': 5}


def test_a_limit_that_lets_all_pass_is_refused():
  with pytest.raises(ValueError, match='max_skipped = 0'):
    dataclasses.replace(PHASE, max_skipped=0)


SHARDED = dataclasses.replace(PHASE, dropout=0.0, shards=4)


def test_shards_change_nothing_and_resume(mesh1, tmp_path, killed_after):
  plain = dataclasses.replace(SHARDED, shards=0)
  whole = _train(tmp_path / 'plain', mesh1, plain)
  with killed_after(loop, '_next_batch', 3):
    _train(tmp_path / 'cut', mesh1, SHARDED)
  np.testing.assert_array_equal(_train(tmp_path / 'cut', mesh1, SHARDED), whole)
  found = (tmp_path / 'cut' / 'examples' / 'it').glob('*.array_record')
  assert len(list(found)) == 4


@pytest.mark.slow
def test_workers_resume_bit_for_bit(mesh1, tmp_path, killed_after):
  flags.FLAGS.mark_as_parsed()
  phase = dataclasses.replace(SHARDED, workers=2)
  whole = _train(tmp_path / 'whole', mesh1, phase)
  with killed_after(loop, '_next_batch', 3):
    _train(tmp_path / 'cut', mesh1, phase)
  np.testing.assert_array_equal(_train(tmp_path / 'cut', mesh1, phase), whole)


def test_workers_need_shards():
  with pytest.raises(ValueError, match='shards = 0 and workers = 2'):
    dataclasses.replace(PHASE, workers=2)
