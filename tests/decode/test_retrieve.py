import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import beam, retrieve
from gr2_jax.sid import index as sid_index


@pytest.fixture(scope='module')
def make(tiny, fmt, mesh1):
  rng = np.random.default_rng(0)
  flat = rng.choice(64, 30, replace=False)
  sids = np.stack(np.unravel_index(flat, (4, 4, 4)), -1)

  def build(width=5, batch_size=3, mesh=mesh1):
    index = sharding.replicate(mesh, sid_index.build(sids, 8))
    return retrieve.Retriever(
      config=tiny.config,
      params=sharding.replicate(mesh, tiny.params),
      mesh=mesh,
      index=index,
      fmt=fmt,
      width=width,
      batch_size=batch_size,
    )

  return build


@pytest.mark.parametrize(
  'length, excluded, want',
  [
    (1, 0, (16, 32)),
    (32, 16, (16, 32)),
    (33, 17, (128, 64)),
    (63, 200, (1024, 64)),
  ],
)
def test_buckets(length, excluded, want):
  assert retrieve.bucket(length, excluded) == want


def test_lists_come_back_in_the_order_of_the_prompts(make):
  retriever = make()
  rng = np.random.default_rng(1)
  lengths = [5, 20, 3, 9, 17, 4, 1]
  prompts = [rng.integers(3, 60, n).tolist() for n in lengths]
  exclude = [rng.choice(30, n % 4, replace=False) for n in lengths]
  items, scores = retriever.top_k(prompts, 4, exclude)
  assert items.shape == scores.shape == (7, 4)
  for row in range(7):
    alone, alone_scores = retriever.top_k([prompts[row]], 4, [exclude[row]])
    np.testing.assert_array_equal(items[row], alone[0])
    # The same program, with other prompts beside this one.
    np.testing.assert_allclose(scores[row], alone_scores[0], atol=1e-5)
    assert not set(items[row]) & set(exclude[row])


def test_it_is_the_beam_search(make, tiny, fmt, mesh1):
  retriever = make()
  tokens = np.zeros((3, 32), np.int32)
  tokens[0, :4] = [7, 8, 9, 10]
  exclude = np.full((3, 16), -1, np.int32)
  exclude[0, 0] = 3
  with sharding.use(mesh1, sharding.DECODE_RULES):
    want = beam.beam_search(
      tiny.config,
      tiny.params,
      *sharding.shard_batch(mesh1, (tokens, tokens > 0)),
      retriever.index,
      fmt=fmt,
      width=5,
      exclude=sharding.shard_batch(mesh1, exclude),
    )
  items, scores = retriever.top_k([[7, 8, 9, 10]], 4, [np.array([3])])
  np.testing.assert_array_equal(items[0], want[0][0, :4])
  np.testing.assert_array_equal(scores[0], want[1][0, :4])


def test_eight_devices_find_the_same(make, mesh1, mesh8):
  rng = np.random.default_rng(3)
  prompts = [rng.integers(3, 60, n).tolist() for n in (5, 20, 3, 9, 40)]
  exclude = [rng.choice(30, n % 4, replace=False) for n in range(5)]
  (one, scores), (eight, scores8) = (
    make(batch_size=4, mesh=mesh).top_k(prompts, 5, exclude)
    for mesh in (mesh1, mesh8)
  )
  np.testing.assert_array_equal(one, eight)
  # Sums over the vocabulary's parts, in another order.
  np.testing.assert_allclose(scores, scores8, atol=1e-5)


def test_other_batches_compile_nothing(make):
  retriever = make()
  retriever.top_k([[5, 6]], 3, [np.array([1])])
  before = beam.beam_search._cache_size()
  rng = np.random.default_rng(2)
  for count in (1, 4):
    prompts = [rng.integers(3, 60, 7).tolist() for _ in range(count)]
    retriever.top_k(prompts, 5, [rng.choice(30, count)] * count)
  assert beam.beam_search._cache_size() == before


def test_nothing_to_find(make):
  items, scores = make().top_k([], 3, [])
  assert items.shape == scores.shape == (0, 3)


def test_what_it_refuses(make):
  with pytest.raises(ValueError, match='width 5 cannot give lists of 6'):
    make().top_k([[5]], 6, [np.zeros(0, int)])
  with pytest.raises(ValueError, match='batch of 0 prompts'):
    make(batch_size=0)
