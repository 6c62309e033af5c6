"""Log-probabilities: hand-computed, constrained, tempered, chunked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gr2_jax import sharding
from gr2_jax.aot import collectives, hlo
from gr2_jax.lm import logps, tables

SCORE = jax.jit(logps.token_logps)


def test_hand_computed():
  logits = np.log(np.array([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]], np.float32))
  allowed = np.array([[-1, -1], [2, 0]])
  got, entropy = SCORE(logits, np.array([1, 2]), 1.0, allowed)
  np.testing.assert_allclose(got, np.log([2 / 8, 5 / 6]), rtol=1e-5)
  free = -sum(p * np.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
  bound = -sum(p * np.log(p) for p in (1 / 6, 5 / 6))
  np.testing.assert_allclose(entropy, [free, bound], rtol=1e-5)


def test_temperature_two_takes_square_roots():
  logits = np.log(np.array([[1.0, 4.0, 16.0]], np.float32))
  got, _ = SCORE(logits, np.array([2]), 2.0)
  np.testing.assert_allclose(got, np.log([4 / 7]), rtol=1e-5)


def test_a_token_outside_its_set_is_impossible_but_finite():
  logits = np.zeros((1, 3), np.float32)
  score = lambda x: logps.token_logps(
    x, np.array([0]), 1.0, np.array([[1, -1]])
  )
  got, entropy = jax.jit(score)(logits)
  assert float(got[0]) == logps.IMPOSSIBLE and float(entropy[0]) == 0
  grad = jax.jit(jax.grad(lambda x: score(x)[0].sum()))(logits)
  np.testing.assert_array_equal(grad, 0)


def test_no_gradient_is_nan_where_logits_are_banned():
  logits = np.array([[0.0, -1e30, 1.0]], np.float32)
  total = lambda x, allowed: sum(
    y.sum() for y in logps.token_logps(x, np.array([0]), 0.7, allowed)
  )
  for allowed in (None, np.array([[-1, -1]]), np.array([[0, 1]])):
    grad = jax.jit(jax.grad(total))(logits, allowed)
    assert np.isfinite(grad).all()


def test_kl_by_hand():
  """Of whole distributions, of allowed ids, of one allowed id, tempered."""
  p = np.log(np.array([1.0, 4.0, 16.0], np.float32))
  q = np.log(np.array([16.0, 1.0, 4.0], np.float32))
  allowed = np.array([[-1, -1], [2, 0], [1, -1]])
  got = jax.jit(logps.token_kl)(
    np.tile(p, (3, 1)), np.tile(q, (3, 1)), 2.0, allowed
  )
  # Temperature 2 takes roots: 1, 2, 4 beside 4, 1, 2; then 1, 4 beside 4, 2.
  free = (1 * np.log(1 / 4) + 2 * np.log(2 / 1) + 4 * np.log(4 / 2)) / 7
  bound = (1 * np.log(0.2 / (4 / 6)) + 4 * np.log(0.8 / (2 / 6))) / 5
  np.testing.assert_allclose(got, [free, bound, 0], rtol=1e-5, atol=1e-6)


def test_kl_of_banned_ids_is_finite_and_so_is_its_gradient():
  p, q = np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)
  p[0, 1], q[0, 1], q[0, 2] = -1e4, -1e4, 2.0
  for allowed in (None, np.array([[-1, -1]]), np.array([[0, -1]])):
    total = lambda p, allowed=allowed: logps.token_kl(p, q, 0.7, allowed).sum()
    value, grad = jax.jit(jax.value_and_grad(total))(p)
    assert np.isfinite(value) and np.isfinite(grad).all() and grad[0, 1] == 0


@settings(max_examples=30, deadline=None)
@given(
  hnp.arrays(np.float32, (4, 7), elements=st.floats(-20, 20, width=32)),
  st.floats(0.2, 5),
)
def test_probabilities_sum_to_one(logits, temperature):
  """Over the vocabulary, and over the allowed set."""
  every = np.broadcast_to(np.arange(7)[:, None], (7, 4))
  tiled = np.broadcast_to(logits[None], (7, 4, 7))
  allowed = np.array([[1, 4, -1], [-1, -1, -1], [6, -1, -1], [0, 2, 5]])
  for limit in (None, np.broadcast_to(allowed[None], (7, 4, 3))):
    got, entropy = SCORE(tiled, every, temperature, limit)
    # Seven float32 exponentials.
    np.testing.assert_allclose(np.exp(got).sum(0), 1, rtol=1e-5)
    assert (np.asarray(entropy) > -1e-4).all()
    assert (np.asarray(entropy) <= np.log(7) + 1e-4).all()


@pytest.mark.parametrize('scanned', [False, True])
@pytest.mark.parametrize('constrained', [False, True])
def test_chunks_change_nothing(constrained, scanned, monkeypatch):
  if scanned:
    # Room for five tokens' logits: 42 tokens make nine chunks, the last with
    # three tokens to spare.
    monkeypatch.setattr(logps, 'BUDGET', 5 * 9 * 4)
  rng = np.random.default_rng(0)
  table = rng.normal(size=(9, 4)).astype(np.float32)
  hidden = rng.normal(size=(2, 3, 7, 4)).astype(np.float32)
  tokens = rng.integers(0, 9, (2, 3, 7))
  allowed = rng.integers(-1, 9, (2, 3, 7, 2)) if constrained else None

  def score(table, chunk):
    unembed = lambda table, h: jnp.einsum('...d,vd->...v', h, table)
    if chunk is None:
      return logps.token_logps(unembed(table, hidden), tokens, 0.8, allowed)
    return logps.chunked_logps(
      unembed,
      table,
      hidden,
      tokens,
      temperature=0.8,
      allowed=allowed,
      chunk=chunk,
    )

  def both(chunk):
    def total(table):
      values = score(table, chunk)
      return sum(jnp.clip(y, -100, None).sum() for y in values), values

    grad, values = jax.jit(jax.grad(total, has_aux=True))(table)
    return *values, grad

  for got, want in zip(both(3), both(None), strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_scanned_chunks_stay_on_their_devices(mesh8, monkeypatch):
  rng = np.random.default_rng(0)
  table = rng.normal(size=(10, 4)).astype(np.float32)
  hidden = rng.normal(size=(8, 7, 4)).astype(np.float32)
  tokens = rng.integers(0, 10, (8, 7))
  seen = []

  def score(hidden, tokens):
    def unembed(table, h):
      seen.append(h.shape)
      return jnp.einsum('...d,vd->...v', h, table)

    return logps.chunked_logps(unembed, table, hidden, tokens)

  want = jax.jit(score)(hidden, tokens)
  # A device has two of the eight rows and half of the vocabulary; four tokens
  # fit, so that 14 make four chunks.
  monkeypatch.setattr(logps, 'BUDGET', 4 * 5 * 4)
  with sharding.use(mesh8, sharding.TRAIN_RULES):
    run = jax.jit(score).lower(*sharding.shard_batch(mesh8, (hidden, tokens)))
    compiled = run.compile()
    got = compiled(*sharding.shard_batch(mesh8, (hidden, tokens)))
  assert seen[-1] == (4, 4)
  for a, b in zip(jax.device_get(got), want, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  assert 'all-to-all' not in compiled.as_text()


@pytest.mark.parametrize('tensor', [1, 2])
def test_scanned_chunks_gather_the_table_once(tensor, monkeypatch):
  mesh = sharding.make_mesh(data=2, fsdp=4 // tensor, tensor=tensor)
  rows = sharding.batch_sharding(mesh)
  like = lambda kind, split, *shape: jax.ShapeDtypeStruct(
    shape, kind, sharding=split
  )
  features = sharding.named(mesh, sharding.TRAIN_RULES, 'vocab', 'table')
  given = (
    like(jnp.float32, features, 10, 8),
    like(jnp.float32, rows, 8, 6, 8),
    like(jnp.int32, rows, 8, 6),
  )

  def total(table, hidden, tokens):
    unembed = lambda table, h: jnp.einsum('...d,vd->...v', h, table)
    return logps.chunked_logps(unembed, table, hidden, tokens)[0].sum()

  # Two of the six or twelve tokens of a device fit.
  monkeypatch.setattr(logps, 'BUDGET', 2 * (10 // tensor) * 4)
  with sharding.use(mesh, sharding.TRAIN_RULES):
    jitted = jax.jit(jax.grad(total), out_shardings=features)
    text = jitted.lower(*given).compile().as_text()
  found = collectives.find(hlo.parse(text), devices=8)
  # A device's part of the table, a quarter, once; and the sums of the gradient
  # of its rows, scattered over the devices that keep their features, then over
  # the two copies. Devices that split the rows exchange numbers per token.
  tables = [c for c in found if c.operand >= 80]
  assert sorted((c.kind, c.operand, c.runs) for c in tables) == [
    ('all-gather', 80, 1),
    ('all-reduce', 80, 1),
    ('reduce-scatter', 320 // tensor, 1),
  ]
  rest = [c for c in found if c.operand < 80]
  assert bool(rest) == (tensor > 1)
  assert all(len(c.group) == tensor for c in rest)


def test_an_id_beyond_the_table_gives_no_nan():
  table = jnp.arange(6.0).reshape(3, 2)
  found = tables.look_up(table, jnp.array([[0, 3, 99]]))
  np.testing.assert_array_equal(found, [[[0, 1], [4, 5], [4, 5]]])
  beyond = logps.token_logps(jnp.zeros((1, 3)), jnp.array([3]))[0]
  np.testing.assert_allclose(beyond, -np.log(3), rtol=1e-6)
