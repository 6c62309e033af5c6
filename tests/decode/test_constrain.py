import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.decode import constrain, parts
from gr2_jax.lm import logps

OPEN, MID, SEP, CLOSE, EOS = 16, 17, 18, 19, 2

_allowed = jax.jit(constrain.allowed, static_argnums=(4, 5))
_advance = jax.jit(constrain.advance, static_argnums=4)


def sid(fmt, codes):
  return [fmt.sid_offset + i * fmt.codes + c for i, c in enumerate(codes)]


def walk(fmt, sids, mask, tokens, explanation_tokens):
  """Feeds tokens to the machine; returns the sets that were allowed."""
  sids, mask = jnp.asarray(sids)[None], jnp.asarray(mask)[None]
  state = constrain.start(mask, 1)
  seen = []
  for step, token in enumerate(tokens):
    ids = _allowed(state, jnp.int32(step), sids, mask, fmt, explanation_tokens)
    ids = [i for i in np.asarray(ids)[0, 0].tolist() if i >= 0]
    assert len(ids) == len(set(ids)), 'an id twice would count twice'
    seen.append(set(ids))
    state = _advance(state, jnp.full((1, 1), token), sids, mask, fmt)
  return seen


def test_every_step_of_an_answer(fmt):
  sids = [[0, 1, 2], [0, 1, 3], [4, 1, 2]]
  first, second, third = (sid(fmt, s) for s in sids)
  answer = [OPEN, 7, 8, MID, *second, SEP, *third, SEP, *first, CLOSE, EOS]
  seen = walk(fmt, sids, [True] * 3, answer, explanation_tokens=4)
  a, b, c = 20, 28, 36
  assert seen == [
    {OPEN},
    set(),
    set(),
    set(),
    {a + 0, a + 4},
    {b + 1},
    {c + 2, c + 3},
    {SEP},
    {a + 0, a + 4},
    {b + 1},
    {c + 2},
    {SEP},
    {a + 0},
    {b + 1},
    {c + 2},
    {CLOSE},
    {EOS},
  ]


def test_mid_is_forced_when_the_budget_is_spent(fmt):
  sids = [[0, 0, 0]]
  answer = [OPEN, 7, 7, MID, *sid(fmt, sids[0]), CLOSE, EOS]
  seen = walk(fmt, sids, [True], answer, explanation_tokens=2)
  assert seen[:4] == [{OPEN}, set(), set(), {MID}]
  assert len(answer) == constrain.answer_length(fmt, 1, 2)


def test_no_explanation(fmt):
  sids = [[0, 0, 0]]
  seen = walk(fmt, sids, [True], [OPEN, MID], explanation_tokens=0)
  assert seen == [{OPEN}, {MID}]


def test_padding_of_a_short_list_is_never_named(fmt):
  sids = [[1, 2, 3], [3, 2, 1], [0, 0, 0]]
  answer = [OPEN, MID, *sid(fmt, sids[1]), SEP, *sid(fmt, sids[0]), CLOSE, EOS]
  seen = walk(fmt, sids, [True, True, False], answer, explanation_tokens=0)
  assert seen[2] == {21, 23}
  assert seen[5:] == [{SEP}, {21}, {30}, {39}, {CLOSE}, {EOS}]


def test_candidates_with_one_sid_are_named_once_each(fmt):
  sids = [[1, 1, 1], [1, 1, 1]]
  one = sid(fmt, sids[0])
  answer = [OPEN, MID, *one, SEP, *one, CLOSE, EOS]
  seen = walk(fmt, sids, [True, True], answer, explanation_tokens=0)
  assert seen[2:] == [
    *({i} for i in one),
    {SEP},
    *({i} for i in one),
    {CLOSE},
    {EOS},
  ]


def test_banned_ids(fmt):
  table = constrain.banned(fmt, 64)
  want = {OPEN, SEP, CLOSE, EOS, fmt.pad, *fmt.unsafe, *range(44, 64)}
  assert set(np.flatnonzero(table).tolist()) == want
  assert MID not in want


@pytest.mark.parametrize('temperature', [0.3, 1.0, 5.0])
def test_the_ban_removes_ids_and_leaves_forced_ones_certain(fmt, temperature):
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(0, 20, (2, 64)), jnp.float32)
  tokens = jnp.array([7, EOS])
  allowed = jnp.array([[-1, -1], [EOS, -1]])
  score = jax.jit(logps.token_logps)
  got, _ = score(constrain.ban(logits, fmt), tokens, temperature, allowed)
  kept = ~constrain.banned(fmt, 64)
  scores = np.asarray(logits, np.float64)[0] / temperature
  want = scores[7] - np.log(np.exp(scores[kept]).sum())
  # Single precision of numbers up to a few hundred.
  np.testing.assert_allclose(got, [want, 0.0], rtol=1e-5, atol=1e-5)


@hypothesis.given(data=st.data())
@hypothesis.settings(deadline=None, max_examples=60)
def test_any_walk_through_the_machine_ends_in_a_permutation(fmt, data):
  """The machine against a plain reading of the finished answer."""
  codes = st.tuples(*[st.integers(0, 2)] * fmt.levels)
  sids = data.draw(st.lists(codes, min_size=1, max_size=4, unique=True))
  count = len(sids)
  sids = np.array(sids + [(0, 0, 0)] * (4 - count), np.int32)
  mask = np.arange(4) < count
  budget = data.draw(st.integers(0, 3))
  free = np.flatnonzero(~constrain.banned(fmt, 64)).tolist()
  tokens = []
  state = constrain.start(jnp.asarray(mask)[None], 1)
  args = (jnp.asarray(sids)[None], jnp.asarray(mask)[None], fmt)
  while not tokens or tokens[-1] != EOS:
    ids = _allowed(state, jnp.int32(len(tokens)), *args, budget)
    ids = [i for i in np.asarray(ids)[0, 0].tolist() if i >= 0]
    if len(tokens) >= parts.begin(budget):
      assert ids and {*ids} <= {*parts.list_ids(fmt).tolist()}
    ids = ids or free
    tokens.append(data.draw(st.sampled_from(ids)))
    state = _advance(state, jnp.full((1, 1), tokens[-1]), *args)
  assert len(tokens) <= constrain.answer_length(fmt, count, budget)
  middle = tokens.index(MID)
  entries, rest = [], tokens[middle + 1 :]
  for _ in range(count):
    entries.append(tuple(rest[: fmt.levels]))
    delimiter, rest = rest[fmt.levels], rest[fmt.levels + 1 :]
    assert delimiter == (SEP if len(entries) < count else CLOSE)
  assert rest == [EOS]
  want = sorted(tuple(sid(fmt, s)) for s in sids[:count].tolist())
  assert sorted(entries) == want
