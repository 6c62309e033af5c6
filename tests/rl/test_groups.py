"""The buffer of dynamic sampling: places, weights, shapes, mini-batches."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.rl import groups

Q, G, S, P = 4, 2, 3, 6


def _make(weights, first=1, prompt=P):
  """Groups whose every array holds the group's own number, from `first`."""
  number = np.arange(first, first + len(weights), dtype=np.int32)
  full = lambda *shape: np.broadcast_to(
    number.reshape((-1,) + (1,) * len(shape)), (len(weights), *shape)
  )
  return groups.Groups(
    prompt=full(prompt),
    prompt_valid=np.ones((len(weights), prompt), bool),
    tokens=full(G, S),
    old_logps=full(G, S).astype(np.float32),
    mask=np.ones((len(weights), G, S), bool),
    allowed=full(G, S, 2),
    advantages=full(G).astype(np.float32),
    weight=np.array(weights, np.float32),
  )


def _numbers(buffer):
  return buffer.tokens[:, 0, 0].tolist()


def test_variance_is_of_the_rank_reward():
  rank = jnp.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.1], [0.0, 0.0, -1.0]])
  np.testing.assert_array_equal(groups.has_variance(rank), [False, True, True])


def test_rounds_fill_the_free_places_in_order():
  buffer = groups.empty(_make([1] * Q), P)
  assert buffer.weight.sum() == 0
  buffer = groups.fill(buffer, _make([0, 1, 0, 1]))
  assert _numbers(buffer) == [2, 4, 0, 0]
  np.testing.assert_array_equal(buffer.weight, [1, 1, 0, 0])
  # The third group that is kept does not fit any more and is dropped.
  buffer = groups.fill(buffer, _make([1, 0, 1, 1], first=11))
  assert _numbers(buffer) == [2, 4, 11, 13]
  again = groups.fill(buffer, _make([1] * Q, first=21))
  assert _numbers(again) == [2, 4, 11, 13]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=Q, max_size=Q), max_size=4))
def test_equals_a_python_list(rounds):
  buffer = groups.empty(_make([1] * Q), P)
  kept = []
  for index, keep in enumerate(rounds):
    first = 10 * (index + 1)
    buffer = groups.fill(buffer, _make(keep, first=first))
    kept += [first + i for i, k in enumerate(keep) if k]
  kept = kept[:Q]
  assert _numbers(buffer) == kept + [0] * (Q - len(kept))
  assert buffer.weight.sum() == len(kept)


def test_no_fill_recompiles_and_none_raises():
  buffer = groups.empty(_make([1] * Q), P)
  groups.fill(buffer, _make([1] * Q))
  before = groups.fill._cache_size()
  for weights in ([0] * Q, [1] * Q, [1, 0, 0, 0], [0, 0, 1, 1]):
    buffer = groups.fill(buffer, _make(weights))
  assert groups.fill._cache_size() == before


def test_shorter_prompts_are_padded_as_invalid():
  buffer = groups.empty(_make([1] * Q, prompt=4), P)
  buffer = groups.fill(buffer, _make([1] * Q, prompt=4))
  assert buffer.prompt.shape == (Q, P)
  np.testing.assert_array_equal(buffer.prompt_valid.sum(1), [4] * Q)


def test_mini_batches_share_a_partial_fill():
  buffer = groups.fill(groups.empty(_make([1] * Q), P), _make([1, 1, 0, 0]))
  parts = [groups.part(buffer, jnp.int32(i), 2, 4) for i in range(2)]
  assert [p.weight.tolist() for p in parts] == [[1, 0], [1, 0]]
  assert [_numbers(p) for p in parts] == [[1, 0], [2, 0]]
  assert parts[0].prompt.shape == (2, 4)
  assert jax.tree.leaves(parts[0])[2].shape == (2, G, S)
