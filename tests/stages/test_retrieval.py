import types

import numpy as np
import pytest

from gr2_jax.stages import retrieval

SIDS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32)
TARGETS = np.array([0, 1, 2])


def test_prefix_recall_by_hand():
  # The first list has its target, the second its first code, the third none.
  items = np.array([[3, 0], [0, 2], [1, -1]], np.int32)
  assert retrieval.prefix_recall(items, TARGETS, SIDS) == [0.6667, 0.3333]


def test_padding_is_not_the_first_item():
  items = np.full((3, 2), -1, np.int32)
  assert retrieval.prefix_recall(items, TARGETS, SIDS) == [0, 0]


def test_illegal_items_are_counted():
  items = np.array([[0, 0], [4, -1], [1, 2]], np.int32)
  # Of five named items one comes twice and one does not exist.
  assert retrieval.illegal_rate(items, 4) == pytest.approx(2 / 5)
  assert retrieval.illegal_rate(np.full((1, 2), -1), 4) == 0


def test_measure_by_hand():
  store = types.SimpleNamespace(
    dataset=types.SimpleNamespace(num_items=4), sids=SIDS
  )
  right, wrong = np.array([[0], [1], [2]]), np.array([[0], [0], [0]])
  pad = np.full((3, 9), -1)
  found = {
    'lm': np.concatenate([right, pad], 1),
    'other': np.concatenate([wrong, pad], 1),
  }
  result = retrieval.measure(found, 'lm', ['other'], TARGETS, store, seed=0)
  assert result['retrieval']['n'] == 3
  assert result['retrieval']['recall@5'] == 1
  # All three lists are right, whichever are drawn.
  assert result['retrieval']['intervals']['recall@5'] == [1, 1, 1]
  assert result['baselines']['other']['ndcg@10'] == pytest.approx(1 / 3)
  delta, low, high = result['retrieval']['deltas']['lm-other']['recall@10']
  assert delta == pytest.approx(2 / 3) and 0 <= low < delta < high <= 1
  alone = retrieval.measure(found, 'other', ['other'], TARGETS, store, seed=0)
  assert alone['retrieval']['deltas'] == {}
  assert alone['baselines']['other']['recall@5'] == pytest.approx(1 / 3)
