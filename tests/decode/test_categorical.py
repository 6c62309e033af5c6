import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.decode import categorical

draw = jax.jit(categorical.draw)


def test_numbers_of_the_inverse_cdf():
  # Weights 1, 2, 1: the CDF steps at 0.25 and 0.75.
  logits = jnp.log(jnp.array([1.0, 2.0, 1.0]))
  uniform = jnp.array([0.0, 0.2, 0.26, 0.74, 0.76, 0.999])
  rows = jnp.broadcast_to(logits, (6, 3))
  assert draw(uniform, rows).tolist() == [0, 0, 1, 1, 2, 2]


def test_two_levels_equal_one_long_cdf():
  # Away from the CDF's steps by 1e-4, far above float32 rounding of the sums.
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (4, 1000)).astype(np.float32)
  weights = np.exp(logits.astype(np.float64))
  total = np.cumsum(weights / weights.sum(-1, keepdims=True), axis=-1)
  uniform = rng.uniform(size=(200, 4)).astype(np.float32)
  want = np.stack(
    [np.searchsorted(total[i], uniform[:, i]) for i in range(4)], 1
  )
  near = np.abs(total[None] - uniform[..., None]).min(-1) < 1e-5
  got = jax.jit(jax.vmap(categorical.draw, (0, None)))(uniform, logits)
  assert near.mean() < 0.05
  assert (np.asarray(got) == want)[~near].all()


def test_statistics_of_many_draws():
  rng = np.random.default_rng(1)
  logits = jnp.asarray(rng.normal(0, 1, 100), jnp.float32)
  draws = 200_000
  uniform = jax.random.uniform(jax.random.key(0), (draws,))
  got = draw(uniform, jnp.broadcast_to(logits, (draws, 100)))
  counts = np.bincount(np.asarray(got), minlength=100)
  want = np.asarray(jax.nn.softmax(logits)) * draws
  # Chi-square with 99 degrees of freedom: mean 99, deviation 14; 170 is 5
  # deviations, and the key is fixed.
  assert ((counts - want) ** 2 / want).sum() < 170


def test_statistics_over_a_large_vocabulary():
  size, draws = 49152, 8192
  logits = jnp.asarray(np.random.default_rng(2).normal(0, 2, size), jnp.float32)
  uniform = jax.random.uniform(jax.random.key(1), (draws,))
  got = np.asarray(
    jax.jit(jax.vmap(categorical.draw, (0, None)))(uniform, logits)
  )
  probs = np.asarray(jax.nn.softmax(logits))
  # 64 bins, by the place in a block and by groups of 12 blocks. Chi-square with
  # 63 degrees of freedom: mean 63, deviation 11.2; 119 is 5 deviations.
  for bins in (np.arange(size) % 64, np.arange(size) // 768):
    counts = np.bincount(bins[got], minlength=64)
    want = np.bincount(bins, probs) * draws
    assert ((counts - want) ** 2 / want).sum() < 119


@hypothesis.given(
  size=st.sampled_from([3, 64, 65, 200]),
  seed=st.integers(0, 2**20),
  uniform=st.sampled_from([0.0, 1e-9, 0.5, 1 - 2**-24]),
)
@hypothesis.settings(deadline=None, max_examples=40)
def test_an_impossible_index_is_never_drawn(size, seed, uniform):
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 5, (8, size)).astype(np.float32)
  impossible = rng.random((8, size)) < 0.9
  impossible[:, rng.integers(size)] = False
  logits[impossible] = -1e4
  got = np.asarray(draw(jnp.full((8,), uniform), jnp.asarray(logits)))
  assert not impossible[np.arange(8), got].any()


def test_temperature_zero_takes_the_first_largest_and_is_traced():
  traces = 0

  def count(uniform, logits, temperature):
    nonlocal traces
    traces += 1
    return categorical.choose(uniform, logits, temperature)

  choose = jax.jit(count)
  logits = jnp.array([[0.0, 3.0, 3.0, 1.0]])
  uniform = jnp.array([0.99])
  assert choose(uniform, logits, jnp.float32(0.0)).tolist() == [1]
  assert choose(uniform, logits, jnp.float32(100.0)).tolist() == [3]
  assert choose(uniform, logits, jnp.float32(0.01)).tolist() == [2]
  assert traces == 1


def test_choose_among_takes_allowed_ids_only():
  logits = jnp.array([[9.0, 1.0, 2.0, 9.0], [9.0, 1.0, 2.0, 9.0]])
  allowed = jnp.array([[2, -1, 1], [-1, -1, -1]])
  for temperature in (0.0, 1.0):
    got = categorical.choose_among(
      jnp.array([0.5, 0.5]), logits, jnp.float32(temperature), allowed
    )
    assert got.tolist() == [2, -1]
