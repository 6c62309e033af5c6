import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gr2_jax import sharding
from gr2_jax.decode import filters

WIDTH = 2999

threshold = jax.jit(filters.threshold)


@pytest.fixture(scope='module', params=['whole', 'blocks'])
def keep(request):
  """`keep(filters, logits [4, WIDTH])`, with either way of the search."""
  jitted = jax.jit(lambda f, x: x >= filters.threshold(f, x))
  with pytest.MonkeyPatch.context() as patch:
    if request.param == 'blocks':
      patch.setattr(filters, '_BLOCK', 4)
      patch.setattr(filters, '_NEAR', 16)
    jitted(filters.make(), jnp.zeros((4, WIDTH)))
  near, _ = filters._largest_blocks(jnp.zeros((1, WIDTH)))
  assert near.shape == (1, WIDTH), 'without the patch it is too small'
  return lambda f, x: np.asarray(jitted(f, jnp.asarray(x)))


def rows(seed, size, spread, steps):
  """Makes four rows of `size` logits, -inf after them; ties where `steps`."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, spread, (4, size))
  if steps:
    logits = np.round(logits * steps) / steps
  # One row in order: its largest logits lie in the same blocks.
  logits[0] = np.sort(logits[0])
  out = np.full((4, WIDTH), -np.inf, np.float32)
  out[:, :size] = logits
  return out


@hypothesis.given(
  seed=st.integers(0, 2**20),
  size=st.one_of(st.integers(1, 40), st.integers(1, WIDTH)),
  spread=st.sampled_from([0.0, 0.1, 1.0, 3.0, 30.0]),
  steps=st.sampled_from([0, 1, 4]),
  top_k=st.one_of(st.just(0), st.integers(1, 70), st.integers(1, 4000)),
  top_p=st.one_of(st.just(1.0), st.floats(1e-3, 1.0)),
  min_p=st.one_of(st.just(0.0), st.floats(1e-6, 0.99)),
)
@hypothesis.settings(deadline=None, max_examples=150)
def test_what_stays_is_what_a_sort_says(
  keep, kept_by_sorting, seed, size, spread, steps, top_k, top_p, min_p
):
  logits = rows(seed, size, spread, steps)
  got = keep(filters.make(top_k, top_p, min_p), logits)[:, :size]
  # Sums of float32 decide within 1e-5; all but boundaries so near is exact.
  less = top_k, max(top_p - 1e-5, 0), min_p * (1 + 1e-5)
  more = top_k, min(top_p + 1e-5, 1), min_p * (1 - 1e-5)
  for row, kept in zip(logits[:, :size], got, strict=True):
    assert kept.any()
    assert (kept >= kept_by_sorting(row, *less)).all()
    assert (kept <= kept_by_sorting(row, *more)).all()


def test_the_bracket_of_the_property_is_almost_always_closed(kept_by_sorting):
  logits = rows(0, WIDTH, 3.0, 0)
  for row in logits:
    less, more = (
      kept_by_sorting(row, 0, p, 0.0) for p in (0.9 - 1e-5, 0.9 + 1e-5)
    )
    assert more.sum() - less.sum() <= 1


@pytest.mark.parametrize(
  'values, kept',
  [
    ({}, 4),
    ({'top_k': 2}, 2),
    ({'top_k': 9}, 4),
    ({'top_p': 0.39}, 1),
    ({'top_p': 0.41}, 2),
    ({'top_p': 0.69}, 2),
    ({'top_p': 1e-30}, 1),
    ({'min_p': 0.6}, 2),
    ({'min_p': 0.4}, 3),
    ({'min_p': 1 - 1e-12}, 1),
    # 0.4 of the 0.7 that top-k leaves is 0.57.
    ({'top_k': 2, 'top_p': 0.55}, 1),
    # Before min-p 0.4 does not reach 0.42; after it, of 0.9, it would.
    ({'top_p': 0.42, 'min_p': 0.3}, 2),
    ({'top_k': 3, 'top_p': 0.9, 'min_p': 0.6}, 2),
  ],
)
def test_numbers_by_hand(values, kept):
  logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
  least = threshold(filters.make(**values), logits)
  assert int((logits >= least).sum()) == kept


def test_ties_stay_together():
  logits = jnp.array([1.0, 0.0, 1.0, 1.0, -0.0])
  for values in ({'top_k': 2}, {'top_p': 0.3}, {'top_k': 1, 'top_p': 0.1}):
    least = threshold(filters.make(**values), logits)
    assert (logits >= least).tolist() == [True, False, True, True, False]
  least = threshold(filters.make(top_k=4), logits)
  assert (logits >= least).all(), 'both zeros are one number'


def test_the_threshold_is_exact_to_the_last_bit():
  above = np.nextafter(np.float32(1), np.float32(2))
  logits = jnp.array([1.0, above, -1e-30, 1e-30, -3.0])
  for k, want in enumerate([above, 1.0, 1e-30, -1e-30], 1):
    least = threshold(filters.make(top_k=k), logits)
    assert least[0] == np.float32(want)


def test_neutral_values_keep_everything():
  off = filters.make()
  assert not bool(filters.active(off))
  least = threshold(off, jnp.array([[0.0, -jnp.inf, -1e30]]))
  assert least.tolist() == [[-np.inf]]
  for values in ({'top_k': 1}, {'top_p': 0.5}, {'min_p': 0.1}):
    assert bool(filters.active(filters.make(**values)))


def test_values_are_traced():
  traces = []

  def count(f, x):
    traces.append(1)
    return filters.threshold(f, x)

  jitted = jax.jit(count)
  for values in ((), (3,), (0, 0.5), (0, 1.0, 0.2), (2**40, 0.1, 0.9)):
    jitted(filters.make(*values), jnp.zeros((2, 5)))
  assert len(traces) == 1


def test_eight_devices_find_what_one_does(mesh8, monkeypatch):
  monkeypatch.setattr(filters, '_BLOCK', 4)
  monkeypatch.setattr(filters, '_NEAR', 16)
  logits = np.random.default_rng(0).normal(0, 3, (8, 1024)).astype(np.float32)
  jitted = jax.jit(lambda f, x: x >= filters.threshold(f, x))
  spec = NamedSharding(mesh8, PartitionSpec(sharding.BATCH, 'tensor'))
  for values in ((12, 0.9, 0.01), (0, 0.3), (0, 0.99)):
    one = jitted(filters.make(*values), jnp.asarray(logits))
    with sharding.use(mesh8, sharding.DECODE_RULES):
      eight = jitted(filters.make(*values), jax.device_put(logits, spec))
    np.testing.assert_array_equal(one, eight)


@pytest.mark.parametrize(
  'values, message',
  [
    ({'top_k': -1}, 'top_k = -1 must be.*or 0 to leave'),
    ({'top_k': 2.5}, 'top_k = 2.5 must be a whole number'),
    ({'top_p': 0.0}, r'top_p = 0.0 must be.*\(0, 1\].*temperature to 0'),
    ({'top_p': 1.01}, 'top_p = 1.01 must be'),
    ({'top_p': float('nan')}, 'top_p = nan must be'),
    ({'min_p': -0.1}, r'min_p = -0.1 must be.*\[0, 1\).*temperature to 0'),
    ({'min_p': 1.0}, 'min_p = 1.0 must be'),
  ],
)
def test_values_out_of_range_are_errors(values, message):
  with pytest.raises(ValueError, match=message):
    filters.make(**values)
