"""Blocks of training batches: complete, repeatable, read in parts."""

import dataclasses
import json

import numpy as np
import pytest

from gr2_jax.sid import batches
from gr2_jax.sid.config import SidConfig

CONFIG = SidConfig(epochs=4, batch_size=4, warmup_epochs=0)
ROWS = np.arange(22, dtype=np.float32)[:, None]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  monkeypatch.setattr(batches, '_BLOCK_VECTORS', 8)


def test_an_epoch_has_every_item_and_fills_up_from_its_beginning():
  blocks = batches.source(ROWS, CONFIG, 0, None)
  # Six steps of four, two a block.
  assert blocks.plan == batches.Plan(blocks=3, steps=2)
  assert len(blocks) == 12
  epochs = [
    # Step s takes rows s, s + 2, ... of a block.
    np.concatenate(
      [blocks[3 * n + i]['vectors'].reshape(4, 2).T.ravel() for i in range(3)]
    )
    for n in range(2)
  ]
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch[:22]), ROWS[:, 0])
    np.testing.assert_array_equal(epoch[22:], epoch[:2])
  assert (epochs[0] != epochs[1]).any()


def test_iteration_from_a_saved_place_on_equals_the_blocks():
  blocks = batches.source(ROWS, CONFIG, 0, None)
  iterator = batches.iterate(blocks)
  for _ in range(5):
    next(iterator)
  place = json.loads(json.dumps(iterator.get_state()))
  again = batches.iterate(blocks)
  again.set_state(place)
  found = list(again)
  assert len(found) == 7
  for i, block in enumerate(found):
    np.testing.assert_array_equal(block['vectors'], blocks[5 + i]['vectors'])


def test_a_process_reads_the_vectors_of_its_own_rows():
  partners = np.stack([np.arange(22)[::-1], np.full(22, -1)], 1).astype('int32')
  config = dataclasses.replace(CONFIG, contrastive=1.0)
  whole = batches.Blocks(ROWS, config, 0, partners)[1]
  mine, others = np.array([2, 3, 4, 5]), np.array([0, 1, 6, 7])
  part = batches.Blocks(ROWS, config, 0, partners, mine)[1]
  for name in ('vectors', 'partners'):
    np.testing.assert_array_equal(part[name][mine], whole[name][mine])
    assert not part[name][others].any()
  for name in ('items', 'positives'):
    np.testing.assert_array_equal(part[name], whole[name])
  np.testing.assert_array_equal(whole['vectors'][..., 0], whole['items'])
  np.testing.assert_array_equal(whole['partners'][..., 0], whole['positives'])
  np.testing.assert_array_equal(whole['positives'], 21 - whole['items'])


def test_positives_are_drawn_from_the_partners_only():
  partners = np.array([[4, 7, -1], [-1, -1, -1], [2, -1, -1]])
  chosen = np.tile(np.arange(3), (200, 1))
  drawn = batches.draw_positives(np.random.default_rng(0), partners, chosen)
  assert set(np.unique(drawn[:, 0])) == {4, 7}
  assert set(np.unique(drawn[:, 1])) == {-1}
  assert set(np.unique(drawn[:, 2])) == {2}
