"""Training: it learns, on eight devices as on one, and resumes bit for bit."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import files, sharding
from gr2_jax.sid import assign, batches, codebook, quantised, steps, train
from gr2_jax.sid.config import SidConfig
from gr2_jax.train import preemption

CONFIG = SidConfig(
  levels=3,
  codes=8,
  bf16_matmul=False,
  split_below=0.0,
  hidden=(16,),
  latent=8,
  epochs=8,
  batch_size=32,
  lr=1e-2,
  warmup_epochs=2,
  check_every=3,
)


@pytest.fixture(scope='module')
def run(vectors, mesh1, tmp_path_factory):
  directory = tmp_path_factory.mktemp('run')
  return train.fit(vectors, CONFIG, mesh1, directory, seed=0), directory


def test_it_learns_and_uses_its_codes(run, vectors, mesh1):
  state, directory = run
  codes, mse, *_ = quantised.infer(state, CONFIG, vectors, mesh1)
  # The mean vector alone reaches 1, by construction; three dimensions of
  # signal carry nearly everything.
  assert mse < 0.3
  assert min(codebook.perplexity(codebook.usage(codes, 8))) > 4
  assert assign.uniqueness(codes) > 0.5
  lines = list(files.read_jsonl(directory / 'metrics.jsonl'))
  assert [line['step'] for line in lines] == list(range(1, 9))
  assert lines[-1]['mse'] < lines[0]['mse']
  assert 'perplexity_2' in lines[2] and 'perplexity_2' not in lines[1]
  assert [x['step'] for x in lines if 'uniqueness' in x] == [3, 6, 8]


def test_resumes_bit_for_bit(run, vectors, mesh1, tmp_path, killed_after):
  """Crashes: before any checkpoint, one epoch after the first, two after."""
  for cut in (1, 4, 2):
    with killed_after(steps, 'block', cut):
      train.fit(vectors, CONFIG, mesh1, tmp_path, seed=0)
  state = train.fit(vectors, CONFIG, mesh1, tmp_path, seed=0)
  for one, other in zip(
    jax.tree.leaves(run[0]), jax.tree.leaves(state), strict=True
  ):
    np.testing.assert_array_equal(one, other)
  assert (tmp_path / 'metrics.jsonl').read_text() == (
    run[1] / 'metrics.jsonl'
  ).read_text()


def test_resumes_in_the_middle_of_several_blocks(
  vectors, mesh1, tmp_path, monkeypatch, killed_after
):
  monkeypatch.setattr(batches, '_BLOCK_VECTORS', 32)
  config = dataclasses.replace(CONFIG, epochs=4, warmup_epochs=1, check_every=1)
  assert batches.source(vectors, config, 0, None).plan.blocks == 3
  want = train.fit(vectors, config, mesh1, tmp_path / 'whole', seed=0)
  with killed_after(steps, 'block', 8):
    train.fit(vectors, config, mesh1, tmp_path / 'cut', seed=0)
  state = train.fit(vectors, config, mesh1, tmp_path / 'cut', seed=0)
  for one, other in zip(
    jax.tree.leaves(want), jax.tree.leaves(state), strict=True
  ):
    np.testing.assert_array_equal(one, other)


def test_sigterm_within_an_epoch_changes_no_bit(
  vectors, mesh1, tmp_path, monkeypatch
):
  """It is saved after the second of three blocks, and continues with the third.

  The record of the cut epoch is a mean over all of its blocks.
  """
  monkeypatch.setattr(batches, '_BLOCK_VECTORS', 32)
  config = dataclasses.replace(CONFIG, epochs=3, warmup_epochs=1)
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  want = train.fit(vectors, config, mesh1, whole, seed=0)
  calls, block = [], steps.block

  def killing(*args):
    calls.append(1)
    if len(calls) == 5:
      os.kill(os.getpid(), signal.SIGTERM)
    return block(*args)

  monkeypatch.setattr(steps, 'block', killing)
  with pytest.raises(SystemExit) as ended:
    train.fit(vectors, config, mesh1, cut, seed=0)
  assert ended.value.code == preemption.EXIT_CODE
  state = train.fit(vectors, config, mesh1, cut, seed=0)
  assert len(calls) == 9
  for one, other in zip(
    jax.tree.leaves(want), jax.tree.leaves(state), strict=True
  ):
    np.testing.assert_array_equal(one, other)
  texts = [(x / 'metrics.jsonl').read_text() for x in (whole, cut)]
  assert texts[0] == texts[1]
  lines = list(files.read_jsonl(cut / 'metrics.jsonl'))
  assert [line['step'] for line in lines] == [3, 6, 9]


def test_perplexity_on_the_device_equals_that_of_the_summary():
  counts = np.array([[4, 0, 0, 0], [1, 1, 1, 1], [3, 0, 5, 2]], np.float32)
  found = train._perplexity(counts)
  np.testing.assert_allclose(found, codebook.perplexity(counts), rtol=1e-6)
  np.testing.assert_allclose(found[:2], [1.0, 4.0], rtol=1e-6)


def test_finished_training_is_only_read(run, vectors, mesh1, monkeypatch):
  monkeypatch.setattr(steps, 'block', None)
  state = train.fit(vectors, CONFIG, mesh1, run[1], seed=0)
  np.testing.assert_array_equal(state.books, run[0].books)


def test_eight_devices_equal_one(run, vectors, mesh1, mesh8):
  """One block from the same state; sums in another order: 1e-5."""
  blocks = batches.source(vectors, CONFIG, 5, None)
  assert blocks.plan == batches.Plan(blocks=1, steps=3)
  results = []
  for mesh in (mesh1, mesh8):
    start = sharding.replicate(mesh, jax.tree.map(np.asarray, run[0]))
    data = sharding.shard_batch(mesh, blocks[0])
    with jax.set_mesh(mesh):
      results.append(steps.block(start, CONFIG, 90, data, jnp.array(True)))
  (one, numbers), (eight, numbers8) = results
  np.testing.assert_array_equal(numbers['counts'], numbers8['counts'])
  assert float(numbers['counts'].sum()) == 3 * 32 * 3
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_batch_size_must_divide_by_the_devices(vectors, mesh8, tmp_path):
  config = dataclasses.replace(CONFIG, batch_size=30)
  with pytest.raises(ValueError, match='batch_size = 30 .* by the 4 devices'):
    train.fit(vectors, config, mesh8, tmp_path, seed=0)
