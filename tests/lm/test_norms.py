"""RMSNorm against its formula and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax.lm import norms


def test_hand_computed():
  x = np.array([[3.0, 4.0]], np.float32)  # mean square 12.5
  got = norms.rms(x, np.array([1.0, 2.0], np.float32), 0.0)
  np.testing.assert_allclose(got, x / 12.5**0.5 * [[1, 2]], rtol=1e-6)


def test_gradients_equal_those_of_autodiff():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 5)).astype(np.float32)
  scale = rng.normal(size=5).astype(np.float32)

  def plain(x, scale):
    mean = jnp.mean(jnp.square(x), -1, keepdims=True)
    return x / jnp.sqrt(mean + 0.1) * scale[None, None]

  run = lambda f: jax.jit(
    jax.value_and_grad(lambda x, s: jnp.sin(f(x, s)).sum(), (0, 1))
  )(x, scale)
  got, want = run(lambda x, s: norms.rms(x, s, 0.1)), run(plain)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    # Float32 sums of 30 terms.
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
