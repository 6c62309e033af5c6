"""Answers as lists of ints, rewarded in plain Python: the whole way agrees.

Each case is read, filtered and rewarded by `rollout.reward` in one jit on
lists of 2 to 50 candidates, padded to 50.
"""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax import sharding
from gr2_jax.decode import sampler
from gr2_jax.rl import groups, rollout
from gr2_jax.rl.config import RLConfig
from gr2_jax.text.answer import AnswerFormat

Q, G, K, L, C = 2, 3, 50, 2, 8
EOS, PAD, QUOTE, OPEN, MID, SEP, CLOSE, OFFSET = 1, 0, 5, 10, 11, 12, 13, 32
WORDS = (20, 21, 22)
FMT = AnswerFormat(
  open=OPEN, mid=MID, sep=SEP, close=CLOSE, eos=EOS, pad=PAD,
  top=14, sid_begin=8, sid_end=9,
  sid_offset=OFFSET, levels=L, codes=C, unsafe=(QUOTE,),
)  # fmt: skip
# Fifty candidates and an explanation of five tokens just fit.
T = 5 + K * (L + 1) + 3
CONFIG = RLConfig(
  steps=1, max_new_tokens=T, explanation_tokens=5, constrain=False, alpha=0.2,
  credit='answer',
  invalid=-1.0,
)  # fmt: skip
CONFIGS = {
  'conditional': {},
  'unconditional': {'conditional': False},
  'conditional, 0 if invalid': {'invalid': 0.0},
  'auc': {'reward': 'auc'},
  'ndcg': {'reward': 'ndcg', 'overlong_buffer': 30},
  'ndcg unconditional': {
    'reward': 'ndcg',
    'conditional': False,
    'invalid': 0.0,
  },
}

_reward = jax.jit(rollout.reward, static_argnums=(0, 1))


def _name(item):
  """The two tokens of one of 64 items."""
  return [OFFSET + item // C, OFFSET + C + item % C]


def _write(items, explanation):
  tokens = [OPEN, *explanation, MID]
  for place, item in enumerate(items):
    tokens += [SEP] * (place > 0) + _name(item)
  return [*tokens, CLOSE, EOS]


def _read(tokens, items):
  """The answered order as indices into `items`; None where it is invalid."""
  if tokens[:1] != [OPEN] or MID not in tokens or tokens[-2:] != [CLOSE, EOS]:
    return None
  middle = tokens.index(MID)
  if set(tokens[1:middle]) & {OPEN, SEP, CLOSE, EOS, PAD, QUOTE}:
    return None
  entries = [[]]
  for token in tokens[middle + 1 : -2]:
    if token == SEP:
      entries.append([])
    else:
      entries[-1].append(token)
  names = [_name(item) for item in items]
  if sorted(entries) != sorted(names):
    return None
  return [names.index(entry) for entry in entries]


def _auc(grades, order):
  pairs = [
    order.index(i) < order.index(j)
    for i in range(len(grades))
    for j in range(len(grades))
    if grades[i] > 0 and grades[j] == 0
  ]
  return sum(pairs) / len(pairs)


def _ndcg(grades, order):
  dcg = lambda ranked: sum(
    (2**g - 1) / math.log2(rank + 1) for rank, g in enumerate(ranked, 1)
  )
  best = sorted(grades, reverse=True)
  return dcg([grades[i] for i in order]) / dcg(best)


def _expect(config, tokens, items, grades, target):
  """(rank reward, shaped reward) of one answer, GR2 word by word."""
  order, count = _read(tokens, items), len(items)
  late = len(tokens) - (T - config.overlong_buffer)
  penalty = 0.0
  if config.overlong_buffer and late > 0:
    penalty = -late / config.overlong_buffer
  if order is None:
    return config.invalid, config.invalid + penalty
  if config.reward == 'promotion':
    before, after = target + 1, order.index(target) + 1
    rank = (before - after) / count
    paid = rank > 0 or before == after == 1 or not config.conditional
    return rank, rank + config.alpha * paid + penalty
  given = list(range(count))
  rank = {'auc': _auc, 'ndcg': _ndcg}[config.reward](grades, order)
  copied = order == given and _auc(grades, given) < 1 and config.conditional
  return rank, (0.0 if copied else rank) + config.alpha + penalty


# (tokens, items, draw) -> tokens; what is longer than T is cut off there.
DAMAGE = {
  'none': lambda t, items, draw: t,
  'duplicate': lambda t, items, draw: [
    *t[:-4],
    *_name(items[draw(st.integers(0, len(items) - 1))]),
    *t[-2:],
  ],
  'omission': lambda t, items, draw: [*t[:-5], *t[-2:]],
  'foreign': lambda t, items, draw: [*t[:-4], *_name(63), *t[-2:]],
  'half a SID': lambda t, items, draw: [*t[:-3], *t[-2:]],
  'one too many': lambda t, items, draw: [
    *t[:-2], SEP, *_name(items[0]), *t[-2:],
  ],
  'cited': lambda t, items, draw: [
    OPEN, 20, *_name(items[-1]), *_name(items[0]), *t[1:],
  ],
  'quote': lambda t, items, draw: [OPEN, QUOTE, *t[1:]],
  'cut off': lambda t, items, draw: t[: draw(st.integers(1, len(t) - 1))],
  'after the end': lambda t, items, draw: [*t[:-1], 20, EOS],
  'at the limit': lambda t, items, draw: [OPEN, *[20] * (T - len(t)), *t[1:]],
  'over it': lambda t, items, draw: [OPEN, *[20] * (T + 1 - len(t)), *t[1:]],
}  # fmt: skip


def _alike(order, worth):
  """The same grades at every place, by other items where there are some."""
  pools = {g: [i for i in order if worth[i] == g] for g in worth.values()}
  return [pools[worth[item]].pop() for item in order]


@st.composite
def _lists(draw):
  """One list: items, grades, target and the tokens of G answers."""
  count = draw(st.one_of(st.integers(2, 8), st.integers(2, K)))
  items = draw(st.permutations(range(63)))[:count]
  grades = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
  positive = draw(st.integers(0, count - 1))
  grades[positive] = max(grades[positive], 1)
  grades[(positive + draw(st.integers(1, count - 1))) % count] = 0
  if draw(st.booleans()):
    # Positives first, in any order: R_auc(identity) = 1, R_ndcg perhaps not.
    grades.sort(key=lambda grade: grade == 0)
  worth = dict(zip(items, grades, strict=True))
  answers, order = [], items
  for _ in range(G):
    order = draw(
      st.one_of(
        st.permutations(items), st.just(items), st.just(_alike(order, worth))
      )
    )
    words = draw(st.lists(st.sampled_from(WORDS), max_size=5))
    damage = DAMAGE[draw(st.sampled_from([*DAMAGE, *['none'] * 6]))]
    answers.append(damage(_write(order, words), items, draw)[:T])
  return items, grades, grades.index(max(grades)), answers


def _arrays(lists):
  """The lists and their answers as `rollout.reward` takes them."""
  size = len(lists)
  items, grades = np.full((2, size, K), -1)
  tokens = np.full((size, G, T), PAD)
  mask = np.zeros((size, G, T), bool)
  for q, (own, own_grades, _, answers) in enumerate(lists):
    items[q, : len(own)], grades[q, : len(own)] = own, own_grades
    for g, answer in enumerate(answers):
      tokens[q, g, : len(answer)] = answer
      mask[q, g, : len(answer)] = True
  int32 = lambda x: np.asarray(x, np.int32)
  prompts = rollout.PromptBatch(
    prompt=np.zeros((size, 1), np.int32),
    prompt_valid=np.ones((size, 1), bool),
    candidate_sids=int32(np.stack([items // C, items % C], -1)),
    candidate_mask=items >= 0,
    citable_sids=np.zeros((size, 0, L), np.int32),
    citable_mask=np.zeros((size, 0), bool),
    target=int32([target for _, _, target, _ in lists]),
    # Padding is masked, not merely graded 0.
    grades=int32(np.where(items >= 0, grades, 2)),
    row=np.arange(size, dtype=np.int32),
    features=np.zeros((size, K, 0), np.float32),
    history=np.zeros((size, 0), np.int32),
    history_valid=np.zeros((size, 0), bool),
  )
  nothing = np.zeros(tokens.shape, np.float32)
  samples = sampler.Samples(
    tokens=int32(tokens),
    logps=nothing,
    behaviour_logps=nothing,
    mask=mask,
    allowed=np.full((*tokens.shape, 1), -1, np.int32),
  )
  return prompts, samples


@pytest.mark.parametrize('name', CONFIGS)
@settings(max_examples=120, deadline=None)
@given(lists=st.lists(_lists(), min_size=Q, max_size=Q))
def test_equals_plain_python(name, lists):
  config = dataclasses.replace(CONFIG, **CONFIGS[name])
  got = jax.device_get(_reward(config, FMT, *_arrays(lists)))
  for q, (items, grades, target, answers) in enumerate(lists):
    orders = [_read(answer, items) for answer in answers]
    expected = [_expect(config, a, items, grades, target) for a in answers]
    rank, shaped = np.array(expected).T
    np.testing.assert_array_equal(got.valid[q], [o is not None for o in orders])
    np.testing.assert_array_equal(
      got.identity[q], [order == [*range(len(items))] for order in orders]
    )
    # float32 sums of up to 50 terms of order one.
    np.testing.assert_allclose(got.rank_rewards[q], rank, atol=3e-6)
    np.testing.assert_allclose(got.rewards[q], shaped, atol=3e-6)
    # Kept by the rank reward, never by the shaped one.
    assert got.groups.weight[q] == (np.ptp(rank) > 1e-9)


@pytest.mark.parametrize('reward', ['auc', 'ndcg'])
def test_eight_devices_reward_alike(reward, mesh8):
  rng = np.random.default_rng(0)
  lists = []
  for _ in range(8):
    items = rng.permutation(63)[: rng.integers(3, 12)].tolist()
    grades = [2, 0, *rng.integers(0, 3, len(items) - 2).tolist()]
    orders = [items, *(rng.permutation(items) for _ in range(G - 1))]
    lists.append((items, grades, 0, [_write(order, [20]) for order in orders]))
  config = dataclasses.replace(CONFIG, reward=reward)
  arrays = _arrays(lists)
  one = jax.device_get(_reward(config, FMT, *arrays))
  with sharding.use(mesh8, sharding.DECODE_RULES):
    eight = _reward(config, FMT, *sharding.shard_batch(mesh8, arrays))
  # No sum crosses a list; the compiler may still order its terms otherwise.
  for name in ('rewards', 'rank_rewards', 'valid', 'identity'):
    np.testing.assert_allclose(
      getattr(one, name), getattr(eight, name), atol=1e-6
    )
  np.testing.assert_array_equal(one.groups.weight, eight.groups.weight)


def test_rounding_is_no_variance():
  """Orders that differ among equal grades alone: float32 sums, other bits."""
  rank = np.array([[0.7, 0.7 - 6e-8, 0.7], [0.5, 0.5 + 1 / 625, 0.5]])
  np.testing.assert_array_equal(
    groups.has_variance(rank.astype(np.float32)), [False, True]
  )
