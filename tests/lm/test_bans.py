"""What free positions may not take, and what constrained ones keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.lm import bans, logps

V, EOS, BEGIN = 64, 2, 14
BANNED = np.isin(np.arange(V), [EOS, *range(40, V)])
BANNED.flags.writeable = False


@pytest.mark.parametrize('temperature', [0.3, 1.0, 5.0])
def test_scores_of_free_and_constrained_places(temperature):
  """A banned id is out where a place is free, and whole where it is limited."""
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 20, (4, V)).astype(np.float32)
  tokens = np.array([7, EOS, 41, 7])
  allowed = np.array([[-1, -1], [EOS, -1], [50, 41], [-2 - BEGIN, -1]])
  score = jax.jit(lambda *x: logps.token_logps(*x, BANNED))
  got, entropy = score(logits, tokens, temperature, allowed)
  kept = np.flatnonzero(~BANNED)
  sets = (kept, [EOS], [50, 41], kept[kept != BEGIN])
  for row, (ids, token) in enumerate(zip(sets, tokens, strict=True)):
    scores = logits[row, ids].astype(np.float64) / temperature
    p = np.exp(scores - scores.max())
    p /= p.sum()
    want = np.log(p[list(ids).index(token)])
    # Single precision of numbers up to a few hundred.
    np.testing.assert_allclose(got[row], want, rtol=1e-5, atol=1e-4)
    want = -(p * np.log(np.maximum(p, 1e-300))).sum()
    np.testing.assert_allclose(entropy[row], want, rtol=1e-4, atol=1e-4)


def test_banned_ids_get_no_gradient_and_none_is_nan():
  logits = np.zeros((3, V), np.float32)
  tokens = np.array([7, 50, 7])
  allowed = np.array([[-1, -1], [50, 41], [-2 - BEGIN, -1]])
  total = lambda x: logps.token_logps(x, tokens, 0.7, allowed, BANNED)[0].sum()
  grad = np.asarray(jax.jit(jax.grad(total))(logits))
  assert np.isfinite(grad).all()
  assert not grad[0, BANNED].any() and grad[0, BEGIN] < 0
  assert not grad[2, BANNED].any() and grad[2, BEGIN] == 0
  assert set(np.flatnonzero(grad[1])) == {41, 50}


def test_divergence_runs_over_what_is_left():
  rng = np.random.default_rng(1)
  p, q = rng.normal(0, 2, (2, 2, V)).astype(np.float32)
  allowed = np.array([[-1, -1], [-2 - BEGIN, -1]])
  got = jax.jit(lambda *x: logps.token_kl(*x, 1.0, allowed, BANNED))(p, q)
  kept = np.flatnonzero(~BANNED)
  for row, ids in enumerate((kept, kept[kept != BEGIN])):
    a, b = (np.exp(x[row, ids]) / np.exp(x[row, ids]).sum() for x in (p, q))
    np.testing.assert_allclose(got[row], (a * np.log(a / b)).sum(), rtol=1e-4)


def test_nothing_banned_changes_nothing():
  logits = jnp.ones((2, V))
  assert bans.apply(logits, None, None) is logits
  np.testing.assert_array_equal(
    bans.apply(logits, None, BANNED)[:, BANNED], bans.BANNED_LOGIT
  )
