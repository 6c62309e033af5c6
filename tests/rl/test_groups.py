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
    sampler_logps=full(G, S).astype(np.float32),
    old_logps=full(G, S).astype(np.float32),
    mask=np.ones((len(weights), G, S), bool),
    allowed=full(G, S, 2),
    advantages=full(G).astype(np.float32),
    weight=np.array(weights, np.float32),
    age=np.zeros(len(weights), np.int32),
  )


def _empty(places=Q):
  return groups.empty(places, G, S, 2, P)


def _numbers(buffer):
  return buffer.tokens[:, 0, 0].tolist()


def test_variance_is_of_the_rank_reward():
  rank = jnp.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.1], [0.0, 0.0, -1.0]])
  np.testing.assert_array_equal(groups.has_variance(rank), [False, True, True])


def test_rounds_fill_the_free_places_in_order():
  buffer = _empty()
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
  buffer = _empty()
  kept = []
  for index, keep in enumerate(rounds):
    first = 10 * (index + 1)
    buffer = groups.fill(buffer, _make(keep, first=first))
    kept += [first + i for i, k in enumerate(keep) if k]
  kept = kept[:Q]
  assert _numbers(buffer) == kept + [0] * (Q - len(kept))
  assert buffer.weight.sum() == len(kept)


def test_no_fill_recompiles_and_none_raises():
  buffer = _empty()
  groups.fill(buffer, _make([1] * Q))
  before = groups.fill._cache_size()
  for weights in ([0] * Q, [1] * Q, [1, 0, 0, 0], [0, 0, 1, 1]):
    buffer = groups.fill(buffer, _make(weights))
  assert groups.fill._cache_size() == before


def test_shorter_prompts_are_padded_as_invalid():
  buffer = _empty()
  buffer = groups.fill(buffer, _make([1] * Q, prompt=4))
  assert buffer.prompt.shape == (Q, P)
  np.testing.assert_array_equal(buffer.prompt_valid.sum(1), [4] * Q)


def test_mini_batches_share_a_partial_fill():
  buffer = groups.fill(_empty(), _make([1, 1, 0, 0]))
  parts = [groups.part(buffer, jnp.int32(i), Q, 2, 4) for i in range(2)]
  assert [p.weight.tolist() for p in parts] == [[1, 0], [1, 0]]
  assert [_numbers(p) for p in parts] == [[1, 0], [2, 0]]
  assert parts[0].prompt.shape == (2, 4)
  assert jax.tree.leaves(parts[0])[2].shape == (2, G, S)


def test_mini_batches_are_of_the_first_groups_only():
  buffer = groups.fill(_empty(2 * Q), _make([1] * Q))
  buffer = groups.fill(buffer, _make([1, 0, 1, 0], first=11))
  parts = [groups.part(buffer, jnp.int32(i), Q, 2, P) for i in range(2)]
  assert [_numbers(p) for p in parts] == [[1, 3], [2, 4]]
  found, longest = groups.count(buffer, Q)
  assert (found, longest) == (Q, P)
  assert groups.count(_empty(2 * Q), Q) == (0, 0)


def _pairs(counts):
  return {name: int(total) for name, (total, _) in counts.items()}


def test_what_is_left_over_waits_a_step_and_is_then_stale():
  buffer = groups.fill(_empty(2 * Q), _make([1] * Q))
  buffer = groups.fill(buffer, _make([0, 1, 1, 1], first=11))
  buffer, counts = groups.carry(buffer, Q, 1)
  assert _numbers(buffer) == [12, 13, 14, 0, 0, 0, 0, 0]
  assert buffer.age.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
  assert _pairs(counts) == {'left_over': 3, 'stale_dropped': 0}
  # They come first; the new ones behind them are a step younger.
  buffer = groups.fill(buffer, _make([1, 1, 1, 0], first=21))
  assert _numbers(buffer)[:6] == [12, 13, 14, 21, 22, 23]
  assert buffer.age.tolist()[:6] == [1, 1, 1, 0, 0, 0]
  # Of a step that trained on the first one only, the old ones are dropped.
  buffer, counts = groups.carry(buffer, 1, 1)
  assert _numbers(buffer)[:4] == [21, 22, 23, 0]
  assert _pairs(counts) == {'left_over': 3, 'stale_dropped': 2}
  buffer, counts = groups.carry(buffer, Q, 0)
  assert buffer.weight.sum() == 0 and _numbers(buffer) == [0] * 2 * Q
  assert _pairs(counts) == {'left_over': 0, 'stale_dropped': 0}


@settings(max_examples=30, deadline=None)
@given(
  st.lists(
    st.lists(st.lists(st.booleans(), min_size=Q, max_size=Q), max_size=3),
    max_size=4,
  ),
  st.integers(0, 2),
)
def test_steps_equal_a_python_queue(steps, max_age):
  """Rounds until Q groups are there; then Q leave, and what is too old."""
  buffer, queue, first = _empty(2 * Q), [], 1
  for now, rounds in enumerate(steps):
    for keep in rounds:
      if len(queue) >= Q:
        break
      buffer = groups.fill(buffer, _make(keep, first=first))
      queue += [(first + i, now) for i, kept in enumerate(keep) if kept]
      first += Q
    assert _numbers(buffer) == [n for n, _ in queue] + [0] * (
      2 * Q - len(queue)
    )
    rest = queue[Q:]
    queue = [(n, made) for n, made in rest if now + 1 - made <= max_age]
    buffer, counts = groups.carry(buffer, Q, max_age)
    assert buffer.weight.sum() == len(queue)
    assert [a for a in buffer.age.tolist() if a] == [
      now + 1 - made for _, made in queue
    ]
    assert _pairs(counts) == {
      'left_over': len(queue),
      'stale_dropped': len(rest) - len(queue),
    }
