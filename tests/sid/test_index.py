"""The prefix index against brute force over the rows."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.sid import index

SIDS = np.array(
  [[2, 0, 1], [0, 1, 1], [0, 1, 0], [2, 2, 2], [0, 0, 2]], np.int32
)


def brute_children(sids, prefix, codes):
  under = (sids[:, : len(prefix)] == prefix).all(1)
  found = np.zeros(codes, bool)
  found[sids[under, len(prefix)]] = True
  return found


def test_walk_by_hand():
  found = index.build(SIDS, 3)
  lo, hi = found.root()
  assert (int(lo), int(hi)) == (0, 5)
  assert found.children(lo, hi, 0).tolist() == [True, False, True]
  lo, hi = found.narrow(lo, hi, 0, 0)
  assert (int(lo), int(hi)) == (0, 3)
  assert found.children(lo, hi, 1).tolist() == [True, True, False]
  lo, hi = found.narrow(lo, hi, 1, 1)
  assert found.children(lo, hi, 2).tolist() == [True, True, False]
  lo, hi = found.narrow(lo, hi, 2, 0)
  assert int(hi - lo) == 1
  assert int(found.item(lo)) == 2
  # Sorted: items 4, 2, 1, 0, 3.
  assert found.row_of.tolist() == [3, 2, 1, 4, 0]
  assert found.count(found.row_of, 0).tolist() == [2, 3, 3, 2, 3]
  assert found.count(found.row_of, 1).tolist() == [1, 2, 2, 1, 1]
  assert found.fanout == (2, 2, 2)


def test_absent_prefix_is_empty_and_stays_empty():
  found = index.build(SIDS, 3)
  lo, hi = found.narrow(*found.root(), 0, 1)
  assert int(lo) == int(hi)
  assert not found.children(lo, hi, 1).any()
  lo, hi = found.narrow(lo, hi, 1, 0)
  assert int(lo) == int(hi)
  # Past the last row, where a clipped gather would read a wrong one.
  lo, hi = found.narrow(jnp.int32(5), jnp.int32(5), 1, 2)
  assert (int(lo), int(hi)) == (5, 5)


@pytest.mark.parametrize(
  ('sids', 'message'),
  [
    ([[0, 1], [2, 0], [0, 1]], r'Items 0 and 2 share the SID \(0, 1\)'),
    ([[0, 3]], '0..3, not in 0..2'),
    (np.zeros((0, 2), int), r'not \(0, 2\)'),
  ],
)
def test_build_refuses(sids, message):
  with pytest.raises(ValueError, match=message):
    index.build(np.asarray(sids), 3)


@jax.jit
def walk_everywhere(tree, codes):
  """Children and ranges of every prefix, legal and illegal ones alike."""
  lo, hi = tree.root()
  masks, ranges = [], []
  for level in range(tree.levels):
    masks.append(tree.children(lo, hi, level))
    lo, hi = tree.narrow(lo[..., None], hi[..., None], level, codes)
    ranges.append((lo, hi))
  return masks, ranges, tree.item(lo)


@pytest.mark.parametrize('seed', range(3))
def test_every_prefix_against_brute_force(seed):
  rng = np.random.default_rng(seed)
  codes, levels = 5, 3
  every = np.indices((codes,) * levels).reshape(levels, -1).T
  sids = rng.permutation(every)[: 20 + 30 * seed]
  masks, ranges, items = walk_everywhere(
    index.build(sids, codes), np.arange(codes)
  )
  for level in range(levels):
    prefixes = itertools.product(range(codes), repeat=level)
    want = [brute_children(sids, prefix, codes) for prefix in prefixes]
    np.testing.assert_array_equal(masks[level].reshape(-1, codes), want)
    lo, hi = ranges[level]
    np.testing.assert_array_equal(hi > lo, masks[level])
  full = np.argwhere(np.asarray(masks[-1]))
  np.testing.assert_array_equal(sids[np.asarray(items)[tuple(full.T)]], full)


def test_index_is_an_argument_of_jitted_functions():
  found = index.build(SIDS, 3)
  walk = jax.jit(lambda tree, code: tree.narrow(*tree.root(), 0, code))
  lo, hi = walk(found, jnp.array([0, 2]))
  np.testing.assert_array_equal(lo, [0, 3])
  np.testing.assert_array_equal(hi, [3, 5])


@pytest.mark.slow
def test_ten_million_items():
  """Exact, small and fast to ask at the scale of a large catalogue."""
  items, levels, codes = 10_000_000, 4, 256
  rng = np.random.default_rng(0)

  def rows(numbers):
    places = codes ** np.arange(levels)[::-1]
    return (numbers[:, None] // places % codes).astype(np.int32)

  # Only 16 of the first codes are used: some prefixes are crowded.
  drawn = np.unique(rng.integers(0, 16 * codes**3, items + items // 20))
  sids = rows(rng.permutation(drawn)[:items])
  started = time.monotonic()
  built = index.build(sids, codes)
  seconds = time.monotonic() - started
  size = sum(x.nbytes for x in jax.tree.leaves(built))
  print(f'{items} items: {seconds:.1f} s, {size / 2**20:.0f} MiB')
  # Three arrays of I x L integers and two of I: nothing of nodes x codes.
  assert size == 4 * items * (3 * levels + 2)

  @jax.jit
  def walk(built, wanted):
    lo, hi = (jnp.broadcast_to(x, wanted.shape[:1]) for x in built.root())
    for level in range(levels):
      legal = built.children(lo, hi, level)
      own = jnp.take_along_axis(legal, wanted[:, level, None], axis=1)[:, 0]
      lo, hi = built.narrow(lo, hi, level, wanted[:, level])
      lo = jnp.where(own, lo, hi)
    return built.item(lo), hi - lo

  asked = rng.permutation(items)[:512]
  found, count = walk(built, jnp.asarray(sids[asked]))
  np.testing.assert_array_equal(found, asked)
  np.testing.assert_array_equal(count, 1)
  absent = rows(np.setdiff1d(rng.integers(0, codes**levels, 512), drawn))
  _, count = walk(built, jnp.asarray(absent))
  np.testing.assert_array_equal(count, 0)
