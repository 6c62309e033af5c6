import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.rank import metrics


def test_hand_computed():
  positions = np.array([0, 2, 4, 5, 10])
  assert metrics.recall_at_k(positions, 1) == 1 / 5
  assert metrics.recall_at_k(positions, 3) == 2 / 5
  assert metrics.recall_at_k(positions, 5) == 3 / 5
  # Position 0 counts 1, 2 counts 1 / log2(4) = 1/2, 4 counts 1 / log2(6).
  expected = (1 + 0.5 + 1 / math.log2(6)) / 5
  assert metrics.ndcg_at_k(positions, 5) == pytest.approx(expected, abs=1e-12)


def test_random_order_of_ten_gives_the_known_constants():
  positions = np.arange(10)  # a uniform target
  found = metrics.mean(metrics.by_list(positions, (1, 3, 5), (3, 5)))
  # A random order of ten, three decimals.
  expected = [0.100, 0.300, 0.500, 0.213, 0.295]
  assert [round(value, 3) for value in found.values()] == expected


def test_a_list_without_its_target_scores_nothing():
  assert metrics.recall_at_k(np.array([-1, 0]), 5) == 0.5
  assert metrics.ndcg_at_k(np.array([-1, 0]), 5) == 0.5


def test_scalars_are_plain_numbers():
  assert float(metrics.recall_at_k([0, 1], 1)) == 0.5


@pytest.mark.parametrize('positions', [[], [[1]], 3])
def test_no_list_is_an_error(positions):
  with pytest.raises(ValueError, match='one position'):
    metrics.recall_at_k(np.array(positions, np.int32), 1)


def test_wrong_input_is_an_error():
  with pytest.raises(TypeError, match='float64'):
    metrics.recall_at_k(np.array([0.5]), 1)
  with pytest.raises(ValueError, match='k is 0'):
    metrics.ndcg_at_k(np.array([0]), 0)


def test_find_positions():
  items = np.array([[3, 1, 2], [4, 5, 6], [7, -1, -1]])
  np.testing.assert_array_equal(
    metrics.find_positions(items, np.array([2, 9, 7])), [2, 3, 0]
  )


def test_retrieval_metrics_names():
  found = metrics.retrieval_metrics(np.array([0, 7]))
  assert list(found) == ['n', 'recall@5', 'recall@10', 'ndcg@5', 'ndcg@10']
  assert found['n'] == 2 and found['recall@5'] == 0.5


@hypothesis.given(
  st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(1, 20)
)
def test_agrees_with_a_sort_based_reference(positions, k):
  recalls, gains = [], []
  for position in positions:
    relevance = [float(place == position) for place in range(31)]
    dcg = sum(r / math.log2(i + 2) for i, r in enumerate(relevance[:k]))
    ideal = sum(
      r / math.log2(i + 2)
      for i, r in enumerate(sorted(relevance, reverse=True)[:k])
    )
    recalls.append(sum(relevance[:k]))
    gains.append(dcg / ideal)
  positions = np.array(positions)
  # Same float64 arithmetic up to the order of the sum.
  assert metrics.recall_at_k(positions, k) == pytest.approx(np.mean(recalls))
  assert metrics.ndcg_at_k(positions, k) == pytest.approx(np.mean(gains))
