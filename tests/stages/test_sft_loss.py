"""The loss of listwise SFT: lists, words and replay, each by plain passes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.rank import heads
from gr2_jax.stages import sft_loss
from gr2_jax.train import step
from tests.rl import tiny

S, T = 7, 12  # Slots of words, tokens of a packed row.
LAMBDA, REPLAY = 0.3, 0.05
LOSS = sft_loss.make(
  tiny.MODEL, tiny.FMT, ['items', 'titles'], lambda_r=LAMBDA, replay=REPLAY
)
DROPPING = sft_loss.make(
  dataclasses.replace(tiny.MODEL, dropout=0.3), tiny.FMT, [], LAMBDA, 0.0
)
run = jax.jit(
  lambda params, batch, parts: step.accumulate(LOSS, params, batch, parts),
  static_argnums=2,
)
drop = jax.jit(DROPPING)


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  prompts = tiny.ranked_set()
  # Grades of 1 and 2 share the choice in some lists.
  grades = prompts.grades.copy()
  grades[1::4, 0], grades[1::4, 1] = 1, 2
  prompts = dataclasses.replace(prompts, grades=grades)
  words = rng.integers(17, 32, (tiny.Q, S)).astype(np.int32)
  segments = np.array([[1] * 5 + [2] * 4 + [0] * 3] * tiny.Q, np.int32)
  positions = np.array([[*range(5), *range(4), 0, 0, 0]] * tiny.Q, np.int32)
  return {
    'direct': prompts.batch(np.arange(tiny.Q)),
    'explained': sft_loss.Explained(
      prompts.batch(np.arange(tiny.Q) + 8),
      words,
      np.arange(S) < rng.integers(1, S + 1, (tiny.Q, 1)),
    ),
    'distilled': sft_loss.Distilled(
      prompts.batch(np.arange(tiny.Q) + 4),
      rng.dirichlet(np.ones(tiny.K), tiny.Q).astype(np.float32)
      * prompts.batch(np.arange(tiny.Q) + 4).candidate_mask,
    ),
    'text': {
      'tokens': rng.integers(17, 32, (tiny.Q, T)).astype(np.int32),
      'segments': segments,
      'positions': positions,
      'weights': rng.choice([0.0, 0.5, 1.0], (tiny.Q, T)).astype(np.float32),
      'task': (segments == 2).astype(np.int32),
    },
  }


_logits = jax.jit(decoder.Decoder(tiny.MODEL).apply)


def _log_probs(lm, texts):
  """Log-probs of the next token after each place of texts, [N, 32, V]."""
  rows = np.zeros((len(texts), 32), np.int32)
  for row, text in zip(rows, texts, strict=True):
    row[: len(text)] = text
  logits = np.asarray(_logits({'params': lm}, rows), np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _scores(params, lists, before):
  """Log P of the candidates [Q, K] behind what stands before them."""
  texts, named = [], []
  for q, k in np.ndindex(lists.candidate_mask.shape):
    codes = lists.candidate_sids[q, k]
    named.append(tiny.FMT.sid_offset + tiny.C * np.arange(tiny.L) + codes)
    texts.append([*before[q], *named[-1]])
  found = _log_probs(params['lm'], texts)
  scores = np.zeros(lists.candidate_mask.shape)
  for row, tokens, (q, k) in zip(
    found, named, np.ndindex(scores.shape), strict=True
  ):
    for level, token in enumerate(tokens):
      first = tiny.FMT.sid_offset + tiny.C * level
      own = row[len(before[q]) - 1 + level]
      inside = np.exp(own[first : first + tiny.C]).sum()
      scores[q, k] += own[token] - np.log(inside)
  return scores


def _choice(lists, values):
  """NLL of the lists' true items by utilities, summed."""
  total = 0.0
  for q, mask in enumerate(lists.candidate_mask):
    odds = np.exp(values[q][mask])
    share = lists.grades[q][mask] / lists.grades[q][mask].sum()
    total -= (share * np.log(odds / odds.sum())).sum()
  return total


def _by_head(params, lists, scores):
  """The same of both heads, by name."""
  sums = {}
  for name, columns in (
    ('full', lists.features),
    ('alone', lists.features[..., 1:]),
  ):
    head = jax.device_get(params['head'][name])
    values = head['tau'] * scores + columns @ head['weights']
    sums[name] = _choice(lists, values)
  return sums


def _distilled(params, batch):
  """Cross-entropy of the teacher's choice and that of the likelihood, summed.

  The head is the one without other evidence.
  """
  lists, head = batch.lists, jax.device_get(params['head'][heads.ALONE])
  values = head['tau'] * _scores(params, lists, _prompts(lists))
  values += lists.features[..., 1:] @ head['weights']
  total = 0.0
  for q, mask in enumerate(lists.candidate_mask):
    odds = np.exp(values[q][mask])
    total -= (batch.share[q][mask] * np.log(odds / odds.sum())).sum()
  return total


def _prompts(lists):
  return [
    row[valid].tolist()
    for row, valid in zip(lists.prompt, lists.prompt_valid, strict=True)
  ]


def _written(params, batch):
  """NLL of the words, summed, without the forced `open`, and their number."""
  prompts, total, count = _prompts(batch.lists), 0.0, 0
  texts = [
    [*prompt, *words[written]]
    for prompt, words, written in zip(
      prompts, batch.words, batch.written, strict=True
    )
  ]
  for prompt, text, row in zip(
    prompts, texts, _log_probs(params['lm'], texts), strict=True
  ):
    for place in range(len(prompt) + 1, len(text)):
      total -= row[place - 1, text[place]]
      count += 1
  return total, count


def _replayed(params, batch):
  """Weighted NLL of two segments a row, each read by itself."""
  total = 0.0
  for begin, end in (0, 5), (5, 9):
    tokens = batch['tokens'][:, begin:end]
    weights = batch['weights'][:, begin:end]
    for row, own, weight in zip(
      _log_probs(params['lm'], tokens), tokens, weights, strict=True
    ):
      for i in range(1, end - begin):
        total -= weight[i] * row[i - 1, own[i]]
  return total


@pytest.fixture(scope='module')
def want(mesh1, batch):
  params = tiny.ranker(mesh1)
  direct, explained = batch['direct'], batch['explained']
  before = [
    [*prompt, *words[written], tiny.FMT.sid_begin]
    for prompt, words, written in zip(
      _prompts(explained.lists),
      explained.words,
      explained.written,
      strict=True,
    )
  ]
  return {
    'direct': _by_head(
      params, direct, _scores(params, direct, _prompts(direct))
    ),
    # The likelihood alone: no head, no column.
    'explained': _choice(
      explained.lists, _scores(params, explained.lists, before)
    ),
    'words': _written(params, explained),
    'distilled': _distilled(params, batch['distilled']),
    'text': _replayed(params, batch['text']),
  }


def _run(mesh, batch, parts=1):
  params, split = tiny.ranker(mesh), sharding.shard_batch(mesh, batch)
  with sharding.use(mesh, sharding.TRAIN_RULES):
    return jax.device_get(run(params, split, parts))


@pytest.fixture(scope='module')
def whole(mesh1, batch):
  return _run(mesh1, batch)


def test_all_kinds_of_rows(whole, want):
  _, total, count, pairs = whole
  words, number = want['words']
  expected = sum(want['direct'].values()) + want['explained']
  expected += LAMBDA * words + REPLAY * want['text'] + want['distilled']
  # float32 sums of a few hundred terms.
  close = dict(rtol=1e-4)
  np.testing.assert_allclose(total, expected, **close)
  # What is counted are lists with a label: twice eight.
  assert count == 2 * tiny.Q
  for name in heads.HEADS:
    found, lists = pairs[f'nll_direct_{name}']
    np.testing.assert_allclose(found, want['direct'][name], **close)
    assert lists == tiny.Q
  found, lists = pairs['nll_explained']
  np.testing.assert_allclose(found, want['explained'], **close)
  assert lists == tiny.Q
  found, lists = pairs['nll_distilled']
  np.testing.assert_allclose(found, want['distilled'], **close)
  assert lists == tiny.Q
  np.testing.assert_allclose(pairs['nll_words'][0], words, **close)
  assert pairs['nll_words'][1] == number > 8
  assert {'nll/items', 'nll/titles'} <= set(pairs)


@pytest.mark.parametrize('kinds', [('direct',), ('explained', 'text')])
def test_a_batch_may_lack_a_kind(mesh1, batch, want, kinds):
  _, total, count, pairs = _run(mesh1, {kind: batch[kind] for kind in kinds})
  expected = sum(want['direct'].values())
  if 'explained' in kinds:
    expected = want['explained']
    expected += LAMBDA * want['words'][0] + REPLAY * want['text']
  np.testing.assert_allclose(total, expected, rtol=1e-4)
  assert count == tiny.Q
  assert any(name.startswith('nll/') for name in pairs) == ('text' in kinds)


def _same(left, right):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3),
    left,
    right,
  )


def test_micro_batches_change_nothing(mesh1, batch, whole):
  _same(_run(mesh1, batch, parts=2), whole)


def test_eight_devices_change_nothing(mesh8, batch, whole):
  _same(_run(mesh8, batch, parts=2), whole)


def test_everything_learns_but_what_words_add(whole):
  """Words of a teacher would teach too much trust: that is left to RL."""
  for path, slope in jax.tree_util.tree_leaves_with_path(whole[0]):
    assert np.isfinite(slope).all(), path
    assert (np.abs(slope).max() > 0) == (path[-1].key != 'words'), path


def test_explanations_move_no_weight_of_the_head(mesh1, batch):
  grads = _run(mesh1, {'explained': batch['explained']})[0]
  assert not any(slope.any() for slope in jax.tree.leaves(grads['head']))
  assert all(slope.any() for slope in jax.tree.leaves(grads['lm']))


def test_the_slope_by_finite_differences(mesh1, batch, whole):
  """Of temperature and a weight, through utilities and softmax."""
  params = tiny.ranker(mesh1)
  split = sharding.shard_batch(mesh1, batch)
  for name in heads.HEADS:
    sums = []
    for change in (0.01, -0.01):
      moved = jax.tree.map(lambda x: x, params)
      own = moved['head'][name]
      own['tau'] = own['tau'] + jnp.float32(change)
      with sharding.use(mesh1, sharding.TRAIN_RULES):
        sums.append(float(run(moved, split, 1)[1]))
    slope = whole[0]['head'][name]['tau']
    # Rounding of sums of about 50 over a difference of 0.02.
    np.testing.assert_allclose(
      (sums[0] - sums[1]) / 0.02, slope, rtol=1e-2, atol=5e-3
    )


def _dropped(mesh, batch, kind, seed=None):
  """The loss of lists, where a shape that drops 0.3 has this seed."""
  given = {kind: batch[kind], 'text': batch['text']}
  given['text'] = {**given['text'], 'task': batch['text']['task'] * 0}
  if seed is not None:
    given['text']['seed'] = np.full(tiny.Q, seed, np.uint32)
  params, split = tiny.ranker(mesh), sharding.shard_batch(mesh, given)
  with sharding.use(mesh, sharding.TRAIN_RULES):
    return float(drop(params, split)[0])


@pytest.mark.parametrize('kind', ['direct', 'explained'])
def test_lists_lose_activations_where_text_rows_bring_a_seed(
  mesh1, batch, want, kind
):
  """Without one, as in validation, nothing is dropped."""
  plain = sum(want['direct'].values())
  if kind == 'explained':
    plain = want['explained'] + LAMBDA * want['words'][0]
  found = _dropped(mesh1, batch, kind)
  np.testing.assert_allclose(found, plain, rtol=1e-4)
  one, again, two = (_dropped(mesh1, batch, kind, x) for x in (1, 1, 2))
  assert one == again and len({one, two, found}) == 3
  assert min(abs(one - found), abs(one - two)) > 0.01


def test_the_kinds_of_lists_lose_other_activations(batch):
  seeded = {'text': {'seed': np.full(tiny.Q, 3, np.uint32)}}
  keys = sft_loss._keys(seeded)
  keys = [tuple(jax.random.key_data(key).tolist()) for key in keys]
  assert len(set(keys)) == 3
  assert sft_loss._keys({'direct': batch['direct']}) == (None,) * 3
  assert sft_loss._keys({'text': batch['text']}) == (None,) * 3


def test_distillation_moves_the_head_without_evidence(mesh1, batch):
  grads = _run(
    mesh1, {'explained': batch['explained'], 'distilled': batch['distilled']}
  )[0]
  assert not any(x.any() for x in jax.tree.leaves(grads['head'][heads.FULL]))
  alone = grads['head'][heads.ALONE]
  assert alone['tau'].any() and alone['weights'].any()
