"""What follows the words, written without decoding."""

import json

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from gr2_jax.decode import ending
from gr2_jax.rl import parse
from gr2_jax.text import encoding, lengths
from gr2_jax.text import vocab as vocab_lib

K, BUDGET = 4, 6
_parse = jax.jit(parse.parse_ranking, static_argnums=2)


@pytest.fixture(scope='module')
def vocab():
  lines = ['Pattern: recent picks are Drama. So it is.'] * 3
  return vocab_lib.Vocab.train(lines, 300, levels=2, codes=4)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(data=st.data())
def test_it_is_what_encode_answer_writes(vocab, data):
  """For short lists and no words too; and it reads as it was ordered."""
  fmt = vocab.answer_format()
  sids = st.tuples(st.integers(0, 3), st.integers(0, 3))
  given = data.draw(st.lists(sids, min_size=1, max_size=K, unique=True))
  count = len(given)
  words = data.draw(st.sampled_from(['', 'so', 'it is', ' <s_a_1>']))
  order = data.draw(st.permutations(range(count)))
  padded = np.zeros((K, 2), np.int32)
  padded[:count] = given
  real = np.arange(K) < count
  written = [fmt.open, *vocab.encode(words, added='sids'), fmt.top]
  size = lengths.words(BUDGET)
  tokens = np.full((1, size), fmt.pad, np.int32)
  tokens[0, : len(written)] = written
  mask = np.arange(size)[None] < len(written)
  full = np.array([*order, *range(count, K)])
  got, kept = ending.complete(
    fmt,
    tokens,
    mask,
    candidate_sids=padded[None],
    candidate_mask=real[None],
    order=full[None],
  )
  assert got.shape == kept.shape == (1, lengths.answer(fmt.levels, K, BUDGET))
  want, _ = encoding.encode_answer(vocab, words, padded[list(order)])
  assert np.asarray(got)[np.asarray(kept)].tolist() == want
  assert (np.asarray(got)[~np.asarray(kept)] == fmt.pad).all()

  places, valid = _parse(got, padded[None], fmt, kept, real[None])
  assert valid.all()
  assert np.argsort(places[0, :count]).tolist() == list(order)
  value = json.loads(vocab.decode(want))
  first = value['recommendations'][0]
  assert value['explanation'].endswith(
    f'First: <|sid_begin|>{first}<|sid_end|>'
  )


def test_batches_of_groups_and_rows_that_are_empty(fmt):
  rng = np.random.default_rng(0)
  sids = rng.integers(0, 8, (3, 1, K, 3)).astype(np.int32)
  sids = np.broadcast_to(sids, (3, 2, K, 3))
  real = np.broadcast_to(
    np.arange(K) < np.array([4, 2, 3])[:, None, None], (3, 2, K)
  )
  order = np.array([[rng.permutation(K) for _ in range(2)] for _ in range(3)])
  padding = ~np.take_along_axis(real, order, -1)
  order = np.take_along_axis(order, np.argsort(padding, -1, 'stable'), -1)
  tokens = np.zeros((3, 2, 4), np.int32)
  tokens[..., :3] = [fmt.open, 7, fmt.top]
  mask = np.zeros((3, 2, 4), bool)
  mask[..., :3] = True
  mask[1, 1] = False
  got, kept = ending.complete(
    fmt, tokens, mask, candidate_sids=sids, candidate_mask=real, order=order
  )
  assert not kept[1, 1].any() and (got[1, 1] == fmt.pad).all()
  places, valid = _parse(got, sids, fmt, kept, real)
  np.testing.assert_array_equal(
    valid, [[True, True], [True, False], [True, True]]
  )
  for q, g in ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1)):
    count = real[q, g].sum()
    want = order[q, g, :count]
    np.testing.assert_array_equal(np.argsort(places[q, g, :count]), want)
