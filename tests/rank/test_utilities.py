"""Likelihoods of candidates against one plain pass for each of them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.rank import utilities
from tests.rl import tiny

# Two layers: the second one reads what the first made of a branch.
MODEL = dataclasses.replace(tiny.MODEL, layers=2)
FMT = dataclasses.replace(tiny.FMT, levels=3)
Q, P, K, L, G, S = 4, 7, 5, 3, 2, 6
LENGTHS = np.array([7, 4, 1, 5])
# Words of each explanation: none but `open`, some, all slots.
WORDS = np.array([[1, 6], [3, 4], [6, 2], [5, 5]])
# float32 sums in another order; a token that sees too much or too little, or
# stands elsewhere, changes log-probabilities by 0.1 and more.
CLOSE = dict(rtol=0, atol=2e-5)

direct = jax.jit(utilities.sid_logps, static_argnums=(0, 1))
explained = jax.jit(utilities.explained_logps, static_argnums=(0, 1))


@functools.cache
def _host(scan=False):
  model = dataclasses.replace(MODEL, scan=scan)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  made = decoder.init(model, mesh, sharding.TRAIN_RULES, jax.random.key(2))
  made['embedding'] = made['embedding'] * 20
  return model, jax.device_get(made)


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  valid = np.arange(P) < LENGTHS[:, None]
  # What stands in padding is not read.
  return {
    'prompt': rng.integers(17, 32, (Q, P)).astype(np.int32),
    'valid': valid,
    'sids': rng.integers(0, FMT.codes, (Q, K, L)).astype(np.int32),
    'words': rng.integers(17, 32, (Q, G, S)).astype(np.int32),
    'written': np.arange(S) < WORDS[..., None],
  }


@functools.cache
def _plain(scan):
  model = dataclasses.replace(MODEL, scan=scan)

  def run(params, rows):
    apply = functools.partial(decoder.Decoder(model).apply, {'params': params})
    states = apply(rows, method='hidden')
    return states, apply(states, method='unembed')

  return jax.jit(run)


def _read(texts, scan=False):
  """Returns states and logits of texts, each padded behind its end."""
  rows = np.zeros((len(texts), P + S + 1 + L), np.int32)
  for row, text in zip(rows, texts, strict=True):
    row[: len(text)] = text
  return jax.device_get(_plain(scan)(_host(scan)[1], rows))


def _named(codes):
  return [FMT.sid_offset + FMT.codes * i + int(c) for i, c in enumerate(codes)]


def _score(logits, begin, codes):
  """Log P of codes whose first stands at `begin`, among those of its level."""
  total = 0.0
  for level, token in enumerate(_named(codes)):
    first = FMT.sid_offset + FMT.codes * level
    row = logits[begin - 1 + level].astype(np.float64)
    own = row[first : first + FMT.codes]
    total += row[token] - np.log(np.exp(own).sum())
  return total


@pytest.fixture(scope='module')
def want(batch):
  """Log P of each candidate [Q, K], one row of text for each."""
  pairs = list(np.ndindex(Q, K))
  texts = [
    [*batch['prompt'][q, : LENGTHS[q]], *_named(batch['sids'][q, k])]
    for q, k in pairs
  ]
  _, logits = _read(texts)
  found = [
    _score(row, LENGTHS[q], batch['sids'][q, k])
    for (q, k), row in zip(pairs, logits, strict=True)
  ]
  return np.array(found).reshape(Q, K)


def _direct(batch, sids=None, params=None):
  return np.asarray(
    direct(
      MODEL,
      FMT,
      _host()[1] if params is None else params,
      batch['prompt'],
      batch['valid'],
      sids=batch['sids'] if sids is None else sids,
    )
  )


def test_each_candidate_equals_a_plain_pass(batch, want):
  got = _direct(batch)
  assert got.shape == (Q, K) and want.std() > 0.3
  np.testing.assert_allclose(got, want, **CLOSE)


def test_order_and_number_of_candidates_do_not_matter(batch, want):
  order = np.random.default_rng(1).permutation(K)
  np.testing.assert_allclose(
    _direct(batch, batch['sids'][:, order]), want[:, order], **CLOSE
  )
  np.testing.assert_allclose(
    _direct(batch, batch['sids'][:, 3:4]), want[:, 3:4], **CLOSE
  )
  more = np.concatenate([batch['sids'], batch['sids'][:, ::-1]], 1)
  np.testing.assert_allclose(
    _direct(batch, more), np.concatenate([want, want[:, ::-1]], 1), **CLOSE
  )


def test_the_padding_of_short_lists_does_not_matter(batch, want):
  sids = batch['sids'].copy()
  sids[:, 3:] = 0
  np.testing.assert_allclose(_direct(batch, sids)[:, :3], want[:, :3], **CLOSE)


def test_all_semantic_ids_of_a_prompt_make_one(batch):
  """64 of three codes: their probabilities sum to 1."""
  every = np.stack(np.meshgrid(*[np.arange(FMT.codes)] * L), -1)
  every = np.broadcast_to(every.reshape(1, -1, L), (Q, 64, L))
  total = np.exp(_direct(batch, every).astype(np.float64)).sum(1)
  np.testing.assert_allclose(total, 1, rtol=1e-5)


def _explained(batch, params=None, scan=False, **changed):
  batch = {**batch, **changed}
  model, host = _host(scan)
  states, logps = explained(
    model,
    FMT,
    host if params is None else params,
    **batch,
  )
  return np.asarray(states), np.asarray(logps)


@pytest.mark.parametrize('scan', [False, True])
def test_behind_words_each_candidate_equals_a_plain_pass(batch, scan):
  states, logps = _explained(batch, scan=scan)
  assert states.shape == (Q, G, S, MODEL.width) and logps.shape == (Q, G, K)
  triples = list(np.ndindex(Q, G, K))
  begins = [LENGTHS[q] + WORDS[q, g] + 1 for q, g, _ in triples]
  texts = [
    [
      *batch['prompt'][q, : LENGTHS[q]],
      *batch['words'][q, g, : WORDS[q, g]],
      FMT.sid_begin,
      *_named(batch['sids'][q, k]),
    ]
    for q, g, k in triples
  ]
  hidden, logits = _read(texts, scan)
  for (q, g, k), begin, own, row in zip(
    triples, begins, hidden, logits, strict=True
  ):
    np.testing.assert_allclose(
      logps[q, g, k], _score(row, begin, batch['sids'][q, k]), **CLOSE
    )
    # State i says what word i is: it stands one place before.
    before = LENGTHS[q] - 1 + np.arange(WORDS[q, g])
    np.testing.assert_allclose(
      states[q, g, : WORDS[q, g]], own[before], rtol=0, atol=1e-4
    )
  # What is written does change what is likely.
  assert np.abs(logps[:, 0] - logps[:, 1]).max() > 0.1


def test_padding_of_words_and_other_candidates_do_not_matter(batch):
  _, want = _explained(batch)
  words = np.where(batch['written'], batch['words'], FMT.pad)
  order = np.random.default_rng(1).permutation(K)
  _, got = _explained(batch, words=words, sids=batch['sids'][:, order])
  np.testing.assert_allclose(got, want[..., order], **CLOSE)


def test_eight_devices_say_the_same(batch, want, mesh8):
  key = jax.random.key(2)
  params = decoder.init(MODEL, mesh8, sharding.TRAIN_RULES, key)
  params['embedding'] = params['embedding'] * 20
  split = sharding.shard_batch(mesh8, batch)
  with sharding.use(mesh8, sharding.TRAIN_RULES):
    got = _direct(split, params=params)
    states, logps = _explained(split, params=params)
  np.testing.assert_allclose(got, want, **CLOSE)
  one = _explained(batch)
  np.testing.assert_allclose(logps, one[1], **CLOSE)
  kept = np.broadcast_to(batch['written'][..., None], states.shape)
  np.testing.assert_allclose(
    np.where(kept, states, 0), np.where(kept, one[0], 0), rtol=0, atol=1e-4
  )


def test_activations_are_dropped_where_a_key_says_so(batch, want):
  model = dataclasses.replace(MODEL, dropout=0.3)
  one, two = jax.random.key(1), jax.random.key(2)
  given = {x: batch[x] for x in ('prompt', 'valid', 'sids')}
  host = _host()[1]
  drop = lambda key: np.asarray(direct(model, FMT, host, **given, dropout=key))
  np.testing.assert_allclose(drop(None), want, **CLOSE)
  np.testing.assert_array_equal(drop(one), drop(one))
  for found in (want, drop(two)):
    assert np.abs(drop(one) - found).max() > 0.05
  drop = lambda key: np.asarray(
    explained(model, FMT, host, **batch, dropout=key)[1]
  )
  plain = _explained(batch)[1]
  np.testing.assert_allclose(drop(None), plain, **CLOSE)
  np.testing.assert_array_equal(drop(one), drop(one))
  for found in (plain, drop(two)):
    assert np.abs(drop(one) - found).max() > 0.05


def test_listwise_likelihood_by_hand():
  values = np.log(np.array([1, 2, 5, 7], np.float32))
  mask = np.array([True, True, True, False])
  nll = lambda *grades: float(
    utilities.listwise_nll(values, mask, np.array(grades))
  )
  # Shares of the three: 1/8, 2/8, 5/8.
  np.testing.assert_allclose(nll(0, 0, 1, 0), np.log(8 / 5), rtol=1e-6)
  np.testing.assert_allclose(nll(1, 0, 0, 0), np.log(8), rtol=1e-6)
  # Grades 1 and 2 share the choice one to two; the size of grades is nothing.
  graded = (np.log(8) + 2 * np.log(8 / 5)) / 3
  np.testing.assert_allclose(nll(1, 0, 2, 0), graded, rtol=1e-6)
  np.testing.assert_allclose(nll(4, 0, 8, 0), graded, rtol=1e-6)
  # Padding is worth nothing.
  assert nll(0, 0, 0, 0) == nll(0, 0, 0, 3) == 0
  np.testing.assert_allclose(nll(0, 0, 1, 3), np.log(8 / 5), rtol=1e-6)


def test_the_slope_of_a_listwise_likelihood_is_finite():
  values = np.array([[1.0, 2.0, np.inf], [0.0, -1.0, 0.0]], np.float32)
  mask = np.array([[True, True, False], [True, True, True]])
  grades = np.array([[0, 1, 0], [0, 0, 0]])
  slope = jax.grad(lambda x: utilities.listwise_nll(x, mask, grades).sum())(
    values
  )
  share = np.exp(1) / (np.exp(1) + np.exp(2))
  np.testing.assert_allclose(slope[0], [share, -share, 0], rtol=1e-5)
  np.testing.assert_array_equal(slope[1], 0)
