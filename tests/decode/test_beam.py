import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import beam
from gr2_jax.lm import decoder
from gr2_jax.sid import index as sid_index

LEVELS, CODES = 3, 8
NONE = np.full((4, 20), -1, np.int32)


def catalogue(items, seed=0):
  rng = np.random.default_rng(seed)
  flat = rng.choice(4**LEVELS, items, replace=False)
  return np.stack(np.unravel_index(flat, (4,) * LEVELS), -1).astype(np.int32)


@pytest.fixture(scope='module')
def sids():
  return catalogue(20)


@pytest.fixture(scope='module')
def search(tiny, fmt, prompts):
  def run(sids, width, exclude=NONE, params=None, prompts=prompts):
    items, scores = beam.beam_search(
      tiny.config,
      tiny.params if params is None else params,
      *map(jnp.asarray, prompts),
      sid_index.build(sids, CODES),
      fmt=fmt,
      width=width,
      exclude=jnp.asarray(exclude, jnp.int32),
    )
    return np.asarray(items), np.asarray(scores)

  return run


def score_items(tiny, fmt, prompts, sids):
  """Log-probabilities [4, I, L] of every item's codes by full forwards."""
  items = len(sids)
  lengths = np.asarray(prompts[1]).sum(1)
  rows = np.zeros((4, items, 8 + LEVELS), np.int32)
  rows[:, :, :8] = prompts[0][:, None]
  for q, length in enumerate(lengths):
    tokens = fmt.sid_offset + np.arange(LEVELS) * CODES + sids
    rows[q, :, length : length + LEVELS] = tokens
  logits = np.asarray(tiny.forward(rows.reshape(4 * items, -1)))
  logits = logits.reshape(4, items, 8 + LEVELS, -1)
  scores = np.zeros((4, items, LEVELS))
  for q, length in enumerate(lengths):
    for level in range(LEVELS):
      start = fmt.sid_offset + level * CODES
      codes = logits[q, :, length - 1 + level, start : start + CODES]
      logps = jax.nn.log_softmax(codes.astype(np.float64), axis=-1)
      scores[q, :, level] = logps[np.arange(items), sids[:, level]]
  return scores


@pytest.fixture(scope='module')
def level_scores(tiny, fmt, prompts, sids):
  return score_items(tiny, fmt, prompts, sids)


def plain_search(level_scores, sids, width, excluded=()):
  """Beam search in plain Python: (score, then SID) decides at every level."""
  beams = [()]
  for level in range(LEVELS):
    grown = {}
    for i, sid in enumerate(sids.tolist()):
      if i not in excluded and tuple(sid[:level]) in beams:
        score = level_scores[i, : level + 1].sum()
        grown[tuple(sid[: level + 1])] = score
    beams = sorted(grown, key=lambda s: (-grown[s], s))[:width]
  found = [sids.tolist().index(list(s)) for s in beams]
  return found + [-1] * (width - len(found))


def test_a_wide_beam_equals_scoring_every_item(search, sids, level_scores):
  items, scores = search(sids, 27)
  exact = level_scores.sum(-1)
  want = np.argsort(-exact, axis=-1, kind='stable')
  np.testing.assert_array_equal(items[:, :20], want)
  # float32 against float64 sums of logits of the size of 10.
  np.testing.assert_allclose(
    scores[:, :20], np.take_along_axis(exact, want, 1), atol=2e-4
  )
  assert (items[:, 20:] == -1).all() and np.isneginf(scores[:, 20:]).all()


@pytest.mark.parametrize('items', [1, 2, 9, 60])
@pytest.mark.parametrize('width', [1, 4, 64])
def test_random_tries(search, tiny, fmt, prompts, items, width):
  """Catalogues of any shape, beams narrower and wider than they are."""
  sids = catalogue(items, seed=100 * items + width)
  scores = score_items(tiny, fmt, prompts, sids)
  found, _ = search(sids, width)
  want = [plain_search(scores[q], sids, width) for q in range(4)]
  assert found.tolist() == want
  if width >= items:
    exhaustive = np.argsort(-scores.sum(-1), axis=-1, kind='stable')
    np.testing.assert_array_equal(found[:, :items], exhaustive)


def test_a_narrow_beam_equals_a_plain_beam_search(search, sids, level_scores):
  items, _ = search(sids, 5)
  want = [plain_search(level_scores[q], sids, 5) for q in range(4)]
  assert items.tolist() == want


@pytest.mark.parametrize('width', [5, 27])
def test_equal_scores_go_by_sid(search, tiny, sids, width):
  """With a table of zeros all codes have the probability 1/8."""
  flat = {**tiny.params, 'embedding': tiny.params['embedding'] * 0}
  items, scores = search(sids, width, params=flat)
  order = sorted(range(20), key=lambda i: tuple(sids[i]))[:width]
  assert items[:, :20].tolist() == [order] * 4
  np.testing.assert_allclose(scores[:, :20], -3 * np.log(8), rtol=1e-6)


def test_partial_ties_go_by_sid(search, tiny, fmt, prompts):
  """Codes 0 and 1 of the first level change places with those of the second.

  Only the embeddings are left, all in one direction, so that every state is the
  same (large rows: the norm's epsilon is lost in rounding) and the items
  (0, 1, 5) and (1, 0, 3) tie although their prefixes do not.
  """
  params = jax.tree.map(lambda x: x * 0, tiny.params)
  table = np.zeros((64, 16), np.float32)
  table[:, 0] = 1000.0
  for level in range(2):
    table[fmt.sid_offset + level * CODES + 1, 0] = 1500.0
  params['embedding'] = jnp.asarray(table)
  params['final_norm'] = jax.tree.map(
    lambda x: jnp.full_like(x, 1e-3), params['final_norm']
  )
  sids = np.array([[1, 0, 3], [0, 1, 5], [1, 1, 0], [0, 0, 0]], np.int32)
  items, scores = search(sids, 4, params=params)
  assert scores[0, 1] == scores[0, 2]
  assert items.tolist() == [[2, 1, 0, 3]] * 4


def test_one_item(search):
  items, scores = search(np.array([[3, 3, 3]], np.int32), 5)
  assert items.tolist() == [[0, -1, -1, -1, -1]] * 4
  assert np.isfinite(scores[:, 0]).all() and np.isneginf(scores[:, 1:]).all()


@pytest.mark.parametrize('width', [5, 27])
def test_excluded_items_do_as_if_they_did_not_exist(
  search, sids, level_scores, width
):
  rng = np.random.default_rng(0)
  exclude = NONE.copy()
  for q, count in enumerate((0, 1, 9, 17)):
    exclude[q, :count] = rng.choice(20, count, replace=False)
  exclude[1, 5] = exclude[1, 0]
  items, scores = search(sids, width, exclude)
  want = [
    plain_search(level_scores[q], sids, width, set(exclude[q].tolist()))
    for q in range(4)
  ]
  assert items.tolist() == want
  np.testing.assert_array_equal(np.isfinite(scores), items >= 0)


def test_excluding_everything_leaves_nothing(search, sids):
  items, scores = search(sids, 5, np.tile(np.arange(20), (4, 1)))
  assert (items == -1).all() and np.isneginf(scores).all()


@pytest.mark.parametrize('seed', range(5))
def test_only_distinct_items_of_the_catalogue(search, sids, remake, seed):
  items, scores = search(sids, 5, params=remake(seed))
  assert ((items >= 0) & (items < 20)).all()
  assert all(len(set(row)) == 5 for row in items.tolist())
  assert (np.diff(scores) <= 0).all()


def test_padding_of_prompts_does_not_matter(search, sids, prompts):
  wide = [jnp.pad(x, ((0, 0), (0, 5))) for x in prompts]
  items, scores = search(sids, 5, prompts=wide)
  want, want_scores = search(sids, 5)
  np.testing.assert_array_equal(items, want)
  # Sums of another length.
  np.testing.assert_allclose(scores, want_scores, atol=1e-4)


def test_eight_devices_find_what_one_does(
  search, sids, tiny, fmt, prompts, mesh8
):
  want, want_scores = search(sids, 5)
  _, shardings = sharding.param_shardings(
    decoder.init_fn(tiny.config),
    mesh8,
    sharding.DECODE_RULES,
    jax.random.key(0),
  )
  batch = sharding.shard_batch(mesh8, (*prompts, NONE))
  with sharding.use(mesh8, sharding.DECODE_RULES):
    items, scores = beam.beam_search(
      tiny.config,
      sharding.reshard(tiny.params, shardings),
      *batch[:2],
      sharding.replicate(mesh8, sid_index.build(sids, CODES)),
      fmt=fmt,
      width=5,
      exclude=batch[2],
    )
  np.testing.assert_array_equal(items, want)
  # float32 sums in another order.
  np.testing.assert_allclose(scores, want_scores, atol=1e-4)


def test_an_index_of_other_sids_is_an_error(tiny, fmt, prompts, sids):
  with pytest.raises(ValueError, match='3 levels of 9 codes .* 3 of 8'):
    beam.beam_search(
      tiny.config,
      tiny.params,
      *prompts,
      sid_index.build(sids, 9),
      fmt=fmt,
      width=3,
      exclude=jnp.asarray(NONE),
    )


@pytest.mark.parametrize('tied', [True, False])
def test_level_logits_are_a_slice_of_the_vocabulary(tiny, fmt, tied):
  rng = np.random.default_rng(0)
  config = dataclasses.replace(tiny.config, tie_embeddings=tied)
  other = jnp.asarray(rng.normal(size=(64, 16)), jnp.float32)
  params = {**tiny.params, 'output': other}
  hidden = jnp.asarray(rng.normal(size=(2, 3, 16)), jnp.float32)
  whole = decoder.Decoder(config).apply(
    {'params': params}, hidden, method='unembed'
  )
  part = beam._level_logits(config, params, hidden, fmt, 1)
  # The same products, summed in blocks of another size.
  np.testing.assert_allclose(part, whole[..., 28:36], rtol=1e-5, atol=1e-5)
