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


def _store(users):
  return types.SimpleNamespace(
    dataset=types.SimpleNamespace(num_items=4),
    sids=SIDS,
    splits=types.SimpleNamespace(
      examples={'test': (np.array(users), np.zeros(len(users), int))}
    ),
  )


def test_measure_by_hand():
  store = _store([0, 1, 2])
  right, wrong = np.array([[0], [1], [2]]), np.array([[0], [0], [0]])
  pad = np.full((3, 9), -1)
  found = {
    'lm': np.concatenate([right, pad], 1),
    'other': np.concatenate([wrong, pad], 1),
  }
  result = retrieval.measure(
    found, 'lm', ['other'], targets=TARGETS, store=store, seed=0
  )
  assert result['retrieval']['n'] == 3
  assert result['retrieval']['recall@5'] == 1
  # All three lists are right, whichever are drawn.
  assert result['retrieval']['intervals']['recall@5'] == [1, 1, 1]
  assert result['baselines']['other']['ndcg@10'] == pytest.approx(1 / 3)
  delta, low, high = result['retrieval']['deltas']['lm-other']['recall@10']
  assert delta == pytest.approx(2 / 3) and 0 <= low < delta < high <= 1
  alone = retrieval.measure(
    found, 'other', ['other'], targets=TARGETS, store=store, seed=0
  )
  assert alone['retrieval']['deltas'] == {}
  assert alone['baselines']['other']['recall@5'] == pytest.approx(1 / 3)


def test_targets_of_one_user_are_drawn_together():
  # Of each user all targets are found or none, so that twenty users, not two
  # hundred targets, say how sure the recall is.
  users = np.repeat(np.arange(20), 10)
  targets = np.zeros(200, int)
  items = np.full((200, 10), -1)
  items[:, 0] = np.where(users % 2, 0, 1)
  half = {}
  for name, whose in {'users': users, 'lists': np.arange(200)}.items():
    found = retrieval.measure(
      {'lm': items}, 'lm', [], targets=targets, store=_store(whose), seed=0
    )
    mean, low, high = found['retrieval']['intervals']['recall@5']
    assert mean == 0.5
    half[name] = (high - low) / 2
  # Binomial: 0.98 / sqrt(n); quantiles of 20 users are a multiple of 0.05.
  assert half['users'] == pytest.approx(0.98 / 20**0.5, abs=0.026)
  assert half['lists'] == pytest.approx(0.98 / 200**0.5, abs=0.006)
