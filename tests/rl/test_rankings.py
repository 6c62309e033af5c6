"""Rewards of rankings, and their loss against slow references."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import constrain, sampler
from gr2_jax.lm import decoder
from gr2_jax.lm import logps as logps_lib
from gr2_jax.rl import ranking_loss, rankings, rollout
from gr2_jax.train import metrics as metrics_lib
from gr2_jax.train import step
from tests.rl import tiny

GIVEN = tiny.MODEL, tiny.RANKED, tiny.FMT
KEY = jax.random.key(4)
LOSS = ranking_loss.make_loss(*GIVEN)


# --- Rewards, by hand.


def _lists():
  """Three lists of four places; the second one has three candidates."""
  target = np.array([2, 0, 1], np.int32)
  mask = np.ones((3, 4), bool)
  mask[1, 3] = False
  nothing = np.zeros((3, 4, tiny.L), np.int32)
  return rollout.PromptBatch(
    prompt=np.zeros((3, 1), np.int32),
    prompt_valid=np.ones((3, 1), bool),
    candidate_sids=nothing,
    candidate_mask=mask,
    citable_sids=nothing,
    citable_mask=mask,
    target=target,
    grades=(np.arange(4) == target[:, None]).astype(np.int32),
    row=np.arange(3, dtype=np.int32),
    features=np.zeros((3, 4, tiny.F), np.float32),
    history=np.zeros((3, 0), np.int32),
    history_valid=np.zeros((3, 0), bool),
  )


ORDER = np.array(
  [
    [
      [2, 0, 1, 3], [0, 1, 2, 3], [0, 2, 1, 3],
      [3, 0, 1, 2], [1, 2, 3, 0], [0, 1, 2, 3],
    ],
    [
      [0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3],
      [0, 2, 1, 3], [0, 1, 2, 3], [2, 1, 0, 3],
    ],
    # Each head of its own, and always the same.
    [[1, 0, 2, 3]] * 3 + [[0, 1, 2, 3]] * 3,
  ],
  np.int32,
)  # fmt: skip
# (rank before - rank after) / length.
PROMOTION = np.array(
  [
    [1 / 2, 0, 1 / 4, -1 / 4, 1 / 4, 0],
    [0, -1 / 3, -2 / 3, 0, 0, -2 / 3],
    [1 / 4] * 3 + [0] * 3,
  ]
)
# And 0.2 where it rose, or was first and stays first.
SHAPED = PROMOTION + 0.2 * np.array(
  [[1, 0, 1, 0, 1, 0], [1, 0, 0, 1, 1, 0], [1] * 3 + [0] * 3]
)


def _reward(**changed):
  config = dataclasses.replace(tiny.RANKED, **changed)
  # Entropies that say which place they are of.
  entropy = np.broadcast_to(np.arange(4, dtype=np.float32) + 1, (3, 6, 4))
  old = np.full((3, 6, 4), -1.5, np.float32)
  return jax.device_get(
    rankings.reward(
      config, _lists(), None, ORDER, old_logps=old, entropy=entropy
    )
  )


def _by_half(rewards, deviation=True):
  halves = rewards.reshape(3, 2, 3)
  centred = halves - halves.mean(-1, keepdims=True)
  if deviation:
    centred = centred / (halves.std(-1, keepdims=True) + 1e-6)
  return centred.reshape(3, 6)


def test_rewards_are_compared_within_each_head():
  drawn, pairs = _reward(advantage_norm='none')
  np.testing.assert_allclose(
    drawn.advantages, _by_half(SHAPED, deviation=False), atol=1e-6
  )
  record = metrics_lib.means(pairs)
  np.testing.assert_allclose(record['reward'], SHAPED.mean(), rtol=1e-6)
  np.testing.assert_allclose(record['rank_reward'], PROMOTION.mean(), rtol=1e-6)
  # Copies: two, two and three of eighteen.
  np.testing.assert_allclose(record['identity_rate'], 7 / 18, rtol=1e-6)
  np.testing.assert_allclose(record['kept_rate'], 2 / 3, rtol=1e-6)
  np.testing.assert_array_equal(drawn.weight, [1, 1, 0])
  drawn, _ = _reward()
  np.testing.assert_allclose(
    drawn.advantages[:2], _by_half(SHAPED)[:2], atol=1e-4
  )
  assert not drawn.advantages[2].any()


def test_without_the_condition_every_order_earns_alpha():
  _, pairs = _reward(conditional=False)
  record = metrics_lib.means(pairs)
  np.testing.assert_allclose(
    record['reward'], PROMOTION.mean() + 0.2, rtol=1e-6
  )


def test_lists_without_variance_stay_where_they_are_asked_for():
  drawn, pairs = _reward(dynamic_sampling=False, max_rounds=1)
  np.testing.assert_array_equal(drawn.weight, [1, 1, 1])
  assert metrics_lib.means(pairs)['kept_rate'] == 1


def test_credit_ends_with_the_true_item_and_with_the_choices():
  drawn, pairs = _reward()
  # Places up to the true item; the last of a list is no choice.
  lengths = [[1, 3, 2, 3, 2, 3], [1, 2, 2, 1, 1, 2], [1] * 3 + [2] * 3]
  want = np.arange(4) < np.array(lengths)[..., None]
  np.testing.assert_array_equal(drawn.mask, want)
  entropy = np.broadcast_to(np.arange(4) + 1, want.shape)[want].mean()
  found = metrics_lib.means(pairs)['place_entropy']
  np.testing.assert_allclose(found, entropy, rtol=1e-6)
  drawn, _ = _reward(credit='answer')
  want = np.broadcast_to(
    np.arange(4) < np.array([[[3]], [[2]], [[3]]]), want.shape
  )
  np.testing.assert_array_equal(drawn.mask, want)


def test_grades_reward_the_whole_list():
  drawn, pairs = _reward(reward='ndcg', credit='answer', conditional=False)
  after = np.array([[1, 3, 2, 4, 2, 3], [1, 2, 3, 1, 1, 3], [1] * 3 + [2] * 3])
  gain = 1 / np.log2(1.0 + after)
  record = metrics_lib.means(pairs)
  np.testing.assert_allclose(record['rank_reward'], gain.mean(), rtol=1e-5)
  np.testing.assert_array_equal(drawn.weight, [1, 1, 0])


# --- Draws and their loss.


def _words(mesh, params, lists):
  with sharding.use(mesh, sharding.DECODE_RULES):
    return sampler.sample(
      tiny.MODEL,
      params,
      lists.prompt,
      lists.prompt_valid,
      jax.random.key(1),
      num_samples=tiny.G,
      max_new_tokens=8,
      temperature=tiny.TEMPERATURE,
      fmt=tiny.FMT,
      items=lists.items,
      constrain=True,
      explanation_tokens=6,
      words_only=True,
    )


def _draw(mesh, explained):
  params = tiny.ranker(mesh)
  prompts = tiny.explained_set() if explained else tiny.ranked_set()
  lists = sharding.shard_batch(mesh, prompts.batch(np.arange(tiny.Q)))
  samples = _words(mesh, params['lm'], lists) if explained else None
  with sharding.use(mesh, sharding.TRAIN_RULES):
    drawn, pairs = rankings.draw(
      *GIVEN, params, lists, key=KEY, samples=samples
    )
  return params, drawn, jax.device_get(pairs)


@pytest.fixture(scope='module', params=[False, True], ids=['direct', 'words'])
def sampled(request, mesh1):
  return _draw(mesh1, request.param)


_gradients = jax.jit(
  lambda params, drawn, parts=1: step.accumulate(LOSS, params, drawn, parts),
  static_argnums=2,
)


def _run(mesh, params, drawn, parts=1):
  with sharding.use(mesh, sharding.TRAIN_RULES):
    return jax.device_get(_gradients(params, drawn, parts))


def _texts(lists, prompt, valid, words, group):
  """Writes a row for each (list, ranking, candidate), words before its codes.

  Returns rows [Q, G, K, T], and how many tokens stand before the codes [Q, G].
  """
  group = 1 if words is None else group
  rows = np.zeros((tiny.Q, group, tiny.K, 32), np.int32)
  begins = np.zeros((tiny.Q, group), np.int32)
  for q, g in np.ndindex(begins.shape):
    before = prompt[q][valid[q]].tolist()
    if words is not None:
      before += words.tokens[q, g][words.written[q, g]].tolist()
      before.append(tiny.FMT.sid_begin)
    begins[q, g] = len(before)
    for row, codes in zip(rows[q, g], lists.candidate_sids[q], strict=True):
      named = codes + tiny.FMT.sid_offset + tiny.C * np.arange(tiny.L)
      row[: len(before) + tiny.L] = [*before, *named]
  return rows, begins


def _at(logits, places):
  """Logits [.., T, V] at places [.., N]."""
  return jnp.take_along_axis(logits, places[..., None], axis=-2)


def _likelihoods(params, lists, prompt, valid, words, group):
  """Log P of candidates [Q, G or 1, K] and logits [Q, G or 1, K, T, V]."""
  rows, begins = _texts(lists, prompt, valid, words, group)
  logits = decoder.Decoder(tiny.MODEL).apply(
    {'params': params['lm']}, rows.reshape(-1, rows.shape[-1])
  )
  logits = logits.reshape(*rows.shape, -1)
  total = 0.0
  for level in range(tiny.L):
    places = np.broadcast_to(
      begins[..., None, None] - 1 + level, (*rows.shape[:3], 1)
    )
    own = _at(logits, places)[..., 0, :]
    first = tiny.FMT.sid_offset + tiny.C * level
    own = jax.nn.log_softmax(own[..., first : first + tiny.C])
    codes = np.broadcast_to(
      lists.candidate_sids[:, None, :, level, None], places.shape
    )
    total += jnp.take_along_axis(own, codes, -1)[..., 0]
  return jnp.broadcast_to(total, (tiny.Q, group, tiny.K)), logits


def _plain(params, drawn):
  """Log-probs of places and words by plain passes over whole texts.

  Returns float32 [Q, G, K], 0 in padding, and [Q, G, S] or None.
  """
  lists, words, group = drawn.lists, drawn.words, drawn.order.shape[1]
  read = lambda *given: _likelihoods(params, lists, *given, group)
  asked = lists.prompt, lists.prompt_valid
  if words is None:
    total, _ = read(*asked, None)
    behind = 0.0 * total
  else:
    total, _ = read(lists.history, lists.history_valid, None)
    behind, logits = read(*asked, words)
  head, utilities = params['head'], []
  for g in range(group):
    name, columns = 'full', lists.features
    if g >= group // 2:
      name, columns = 'alone', lists.features[..., 1:]
    utilities.append(
      head[name]['tau'] * total[:, g]
      + columns @ head[name]['weights']
      + head[name]['words'] * behind[:, g]
    )
  chosen = jnp.take_along_axis(jnp.stack(utilities, 1), drawn.order, -1)
  real = np.arange(tiny.K) < lists.candidate_mask.sum(-1)[:, None, None]
  chosen = jnp.where(real, chosen, -1e9)
  places = jnp.stack(
    [
      chosen[..., place] - jax.nn.logsumexp(chosen[..., place:], -1)
      for place in range(tiny.K)
    ],
    -1,
  )
  places = jnp.where(real, places, 0.0)
  if words is None:
    return places, None
  slots = words.tokens.shape[-1]
  ahead = lists.prompt_valid.sum(-1)[:, None, None] - 1 + np.arange(slots)
  ahead = np.broadcast_to(ahead, words.tokens.shape)
  scored, _ = logps_lib.token_logps(
    _at(logits[:, :, 0], ahead),
    words.tokens,
    tiny.RANKED.temperature,
    words.allowed,
    constrain.banned(tiny.FMT, tiny.MODEL.vocab_size),
  )
  return places, scored


def _mask(drawn):
  """The places, behind the words, that the loss is of."""
  mask = drawn.mask & (drawn.weight > 0)[:, None, None]
  if drawn.words is None:
    return mask
  words = drawn.words.written & (drawn.weight > 0)[:, None, None]
  return np.concatenate([words, mask], -1)


def test_old_log_probs_and_slopes_equal_a_slow_reference(mesh1, sampled):
  """At the ratio 1 the loss has the gradient of REINFORCE."""
  params, drawn, _ = sampled
  grads, total, count, pairs = _run(mesh1, params, drawn)
  drawn = jax.device_get(drawn)
  mask = _mask(drawn)
  assert count == mask.sum() > tiny.Q

  def reinforce(params):
    chosen, words = _plain(params, drawn)
    found = chosen if words is None else jnp.concatenate([words, chosen], -1)
    gain = jnp.asarray(drawn.advantages)[..., None]
    return -jnp.sum(jnp.where(mask, gain * found, 0.0)), (chosen, words)

  want, (chosen, words) = jax.jit(jax.grad(reinforce, has_aux=True))(params)
  np.testing.assert_allclose(drawn.old_logps, chosen, atol=1e-4)
  assert drawn.old_logps.min() < -0.5
  if words is not None:
    written = drawn.words.written
    old, own = drawn.words.old_logps, drawn.words.sampler_logps
    np.testing.assert_allclose(old[written], words[written], atol=1e-4)
    np.testing.assert_allclose(old[written], own[written], atol=1e-4)
    assert old[written].min() < -0.5
  largest = max(np.abs(g).max() for g in jax.tree.leaves(want))
  assert largest > 0.1
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-3, atol=2e-5 * max(1, largest)
    ),
    grads,
    jax.device_get(want),
  )
  # Every kind of parameter learns; what words add, where there are words.
  for own in grads['head'].values():
    learns = {name: np.abs(slope).max() > 0 for name, slope in own.items()}
    assert learns == {'tau': True, 'weights': True, 'words': words is not None}
  # The loss itself is minus the sum of the advantages.
  gain = np.broadcast_to(drawn.advantages[..., None], mask.shape)
  np.testing.assert_allclose(total, -gain[mask].sum(), atol=1e-2)


def test_the_ratio_is_one_before_the_first_update(mesh1, sampled):
  params, drawn, _ = sampled
  pairs = _run(mesh1, params, drawn)[3]
  record = metrics_lib.means(pairs)
  for name in ('ratio', 'ratio_min', 'ratio_max'):
    np.testing.assert_allclose(record[name], 1, atol=1e-4)
  assert record['clip_fraction'] == 0 and record['logp_gap'] < 1e-4


def test_a_large_step_makes_the_clip_act(mesh1, sampled):
  params, drawn, _ = sampled
  grads = _run(mesh1, params, drawn)[0]
  size = math.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
  moved = jax.tree.map(lambda x, g: x - 0.5 / size * g, params, grads)
  record = metrics_lib.means(_run(mesh1, moved, drawn)[3])
  assert record['clip_fraction'] > 0
  assert record['ratio_min'] < 0.8 and record['ratio_max'] > 1.28


def _noisy(drawn):
  """Old log-probs of another policy: ratios and clips are at work."""
  key = jax.random.key(2)
  add = lambda x: x + 0.4 * jax.random.normal(key, x.shape)
  words = drawn.words
  if words is not None:
    words = words.replace(old_logps=add(words.old_logps))
  return drawn.replace(old_logps=add(drawn.old_logps), words=words)


def test_the_clipped_loss_by_plain_sums(mesh1, sampled):
  params, drawn, _ = sampled
  new, noisy = jax.device_get(drawn), _noisy(drawn)
  _, total, count, pairs = _run(mesh1, params, noisy)
  noisy = jax.device_get(noisy)
  join = lambda x: (
    x.old_logps
    if x.words is None
    else np.concatenate([x.words.old_logps, x.old_logps], -1)
  )
  mask, ratios = _mask(new), np.exp(join(new) - join(noisy))
  loss, stopped = 0.0, 0
  for q, g, place in zip(*np.nonzero(mask), strict=True):
    gain, ratio = float(new.advantages[q, g]), float(ratios[q, g, place])
    clipped = min(max(ratio, 0.8), 1.28)
    loss -= min(ratio * gain, clipped * gain)
    stopped += clipped * gain < ratio * gain
  np.testing.assert_allclose(total, loss, rtol=1e-3, atol=1e-2)
  assert count == mask.sum() and pairs['clip_fraction'][0] == stopped > 0


def test_parts_of_a_batch_add_up(mesh1, sampled):
  """Lists of weight 0 count for nothing, micro-batches change nothing."""
  params, drawn, _ = sampled
  noisy = _noisy(drawn)
  some = np.array([1, 0, 0, 1, 0, 1, 0, 0], np.float32)
  found = [
    _run(mesh1, params, noisy.replace(weight=jnp.asarray(weight)))
    for weight in (np.ones(8, np.float32), some, 1 - some)
  ]
  whole, left, right = found
  assert whole[2] == left[2] + right[2] and left[2] != right[2] > 0
  close = dict(rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(whole[1], left[1] + right[1], **close)
  jax.tree.map(
    lambda a, b, c: np.testing.assert_allclose(a, b + c, **close),
    whole[0], left[0], right[0],
  )  # fmt: skip
  nothing = noisy.replace(weight=jnp.zeros(8, jnp.float32))
  grads, total, count, pairs = _run(mesh1, params, nothing)
  assert total == count == 0
  record = metrics_lib.means(pairs)
  assert record['ratio_min'] == record['ratio_max'] == 1
  assert not any(g.any() for g in jax.tree.leaves(grads))
  one, two = _run(mesh1, params, noisy), _run(mesh1, params, noisy, 2)
  assert one[2] == two[2]
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_allclose(a, b, **close)


@pytest.mark.parametrize('explained', [False, True], ids=['direct', 'words'])
def test_eight_devices_draw_and_learn_the_same(mesh1, mesh8, explained):
  one, eight = (_draw(mesh, explained) for mesh in (mesh1, mesh8))
  np.testing.assert_array_equal(one[1].order, eight[1].order)
  if explained:
    np.testing.assert_array_equal(one[1].words.tokens, eight[1].words.tokens)
  np.testing.assert_allclose(one[1].old_logps, eight[1].old_logps, atol=1e-4)
  np.testing.assert_allclose(one[1].advantages, eight[1].advantages, atol=1e-5)
  for name, (total, count) in one[2].items():
    np.testing.assert_allclose(total, eight[2][name][0], rtol=1e-4)
    assert count == eight[2][name][1]
  close = dict(rtol=1e-3, atol=1e-3)
  left = _run(mesh1, one[0], _noisy(one[1]))
  # Micro-batches of four lists, each on the devices that split a batch.
  noisy = jax.device_get(_noisy(one[1]))
  right = _run(mesh8, eight[0], sharding.shard_batch(mesh8, noisy), 2)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    np.testing.assert_allclose(a, b, **close)


def test_each_half_is_drawn_by_its_head(mesh1):
  """Sure heads: the full one by one column, the other by the other."""
  params = tiny.ranker(mesh1)
  sure = {
    'full': {'tau': 0.0, 'weights': [1e4, 0.0], 'words': 0.0},
    'alone': {'tau': 0.0, 'weights': [1e4], 'words': 0.0},
  }
  params['head'] = jax.tree.map(
    lambda like, x: jnp.asarray(x, jnp.float32).reshape(like.shape),
    params['head'],
    sure,
    is_leaf=lambda x: isinstance(x, list),
  )
  batch = tiny.ranked_set().batch(np.arange(tiny.Q))
  lists = sharding.shard_batch(mesh1, batch)
  with sharding.use(mesh1, sharding.TRAIN_RULES):
    drawn, _ = rankings.draw(*GIVEN, params, lists, key=KEY)
  columns = np.where(batch.candidate_mask[..., None], batch.features, -np.inf)
  for begin, column in ((0, 0), (4, 1)):
    want = np.argsort(-columns[..., column], axis=-1, kind='stable')
    for g in range(begin, begin + 4):
      np.testing.assert_array_equal(drawn.order[:, g], want)


def test_words_add_to_the_direct_utilities_by_hand():
  head = {
    'full': {'tau': 2.0, 'weights': np.array([1.0, 10.0]), 'words': 0.5},
    'alone': {'tau': 1.0, 'weights': np.array([-1.0]), 'words': 3.0},
  }
  logps = np.array([[-1.0, -3.0]], np.float32)
  features = np.array([[[1.0, 0.0], [2.0, 1.0]]], np.float32)
  # Full: -2 + 1 and -6 + 2 + 10; alone, of the second column: -1 and -3 - 1.
  found = rankings.by_head(head, logps, features, 4)
  np.testing.assert_allclose(found, [[[-1, 6]] * 2 + [[-1, -4]] * 2])
  behind = np.float32([[[0, -2], [-4, 0], [-1, 0], [0, -1]]])
  found = rankings.by_head(head, logps, features, 4, behind)
  np.testing.assert_allclose(found, [[[-1, 5], [-3, 6], [-4, -4], [-1, -7]]])


def test_without_weight_words_change_no_utility(mesh1):
  """What stands in the explained prompt is not read then."""
  params = tiny.ranker(mesh1)
  for own in params['head'].values():
    own['words'] = own['words'] * 0
  prompts = tiny.explained_set()
  rows = np.arange(tiny.Q)
  batch = sharding.shard_batch(mesh1, prompts.batch(rows))
  direct = dataclasses.replace(
    prompts, prompts=prompts.histories, histories=None
  )
  direct = sharding.shard_batch(mesh1, direct.batch(rows))
  samples = _words(mesh1, params['lm'], batch)
  written = rankings.Words(
    samples.tokens, samples.mask, samples.allowed, samples.logps, samples.logps
  )
  with sharding.use(mesh1, sharding.TRAIN_RULES):
    given = tiny.MODEL, tiny.RANKED, tiny.FMT, params
    explained, _ = rankings.score(
      *given, batch, words=written, num_samples=tiny.G
    )
    plain, _ = rankings.score(*given, direct, words=None, num_samples=tiny.G)
  np.testing.assert_allclose(explained, plain, atol=1e-5)


def test_a_list_counts_as_a_list_in_the_joint_loss(monkeypatch):
  """32 lists of mean 6 / 4 and 8 of mean 9 / 3; a kind without places is 0."""
  totals = {32: (6.0, 4.0), 8: (9.0, 3.0), 2: (0.0, 0.0)}

  def one(params, drawn):
    total, count = totals[len(drawn.weight)]
    return jnp.float32(total), jnp.float32(count), {'ratio': (count, count)}

  monkeypatch.setattr(ranking_loss, 'make_loss', lambda *given: one)
  joint = ranking_loss.make_joint_loss(*GIVEN)
  none = rankings.Rankings(*[None] * 6, weight=None)
  lists = lambda count: none.replace(weight=np.ones(count))
  both = {'direct': lists(32), 'explained': lists(8)}
  total, count, pairs = joint(None, both)
  assert count == 1
  np.testing.assert_allclose(total, 0.8 * 6 / 4 + 0.2 * 9 / 3, rtol=1e-6)
  assert set(pairs) == {'ratio', 'explained/ratio'}
  np.testing.assert_allclose(joint(None, {'direct': lists(32)})[0], 6 / 4)
  assert joint(None, {'direct': lists(2)})[0] == 0
