"""The state machine by hand, and against a plain reading of its answers."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.decode import constrain, parts
from gr2_jax.decode.items import Items
from gr2_jax.text import lengths

OPEN, TOP, MID, SEP, CLOSE, EOS = 16, 13, 17, 18, 19, 2
BEGIN, END = 14, 15
# Free, and free without a place for a citation.
FREE, NO_CITATION = 'free', 'no citation'

_allowed = jax.jit(constrain.allowed, static_argnums=(3, 4))
_advance = jax.jit(constrain.advance, static_argnums=3)


def sid(fmt, codes):
  return [fmt.sid_offset + i * fmt.codes + c for i, c in enumerate(codes)]


def make(sids, mask=None, citable=(), seen=None):
  """Items of one prompt; all real by default."""
  citable = np.reshape(np.array(citable, np.int32), (-1, len(sids[0])))
  mask = np.ones(len(sids), bool) if mask is None else np.array(mask)
  seen = np.ones(len(citable), bool) if seen is None else np.array(seen)
  arrays = np.array(sids, np.int32), mask, citable, seen
  return Items(*(jnp.asarray(x)[None] for x in arrays))


def read(fmt, row):
  """Returns a row of `allowed` as a set, `FREE` or `NO_CITATION`."""
  row = np.asarray(row).tolist()
  ids = [i for i in row if i >= 0]
  assert len(ids) == len(set(ids)), 'an id twice would count twice'
  if ids:
    return set(ids)
  assert set(row[1:]) <= {-1}
  return {-1: FREE, -2 - fmt.sid_begin: NO_CITATION}[row[0]]


def walk(fmt, items, tokens, budget):
  """Feeds tokens to the machine; returns what was allowed before each."""
  state = constrain.start(items, 1)
  seen = []
  for step, token in enumerate(tokens):
    row = _allowed(state, jnp.int32(step), items, fmt, budget)[0, 0]
    assert len(row) == items.ids
    seen.append(read(fmt, row))
    state = _advance(state, jnp.full((1, 1), token), items, fmt)
  return seen


def closing(fmt, codes):
  return [TOP, BEGIN, *sid(fmt, codes), END, MID, *sid(fmt, codes)]


def test_every_step_of_an_answer(fmt):
  sids = [[0, 1, 2], [0, 1, 3], [4, 1, 2]]
  first, second, third = (sid(fmt, s) for s in sids)
  answer = [OPEN, 7, 8, *closing(fmt, sids[1]), SEP, *third, SEP, *first]
  answer += [CLOSE, EOS]
  seen = walk(fmt, make(sids, citable=sids), answer, budget=9)
  a, b, c = 20, 28, 36
  assert seen == [
    {OPEN},
    FREE,
    FREE,
    FREE,
    {BEGIN},
    {a + 0, a + 4},
    {b + 1},
    {c + 2, c + 3},
    {END},
    {MID},
    # The list can only begin with what was named.
    *({i} for i in second),
    {SEP},
    {a + 0, a + 4},
    {b + 1},
    {c + 2},
    {SEP},
    *({i} for i in first),
    {CLOSE},
    {EOS},
  ]


def test_a_citation_spells_a_citable_item(fmt):
  shown = [[0, 1, 2], [0, 2, 2], [7, 7, 7], [0, 1, 5], [0, 1, 2]]
  seen = [True, True, False, True, True]
  words = [7, BEGIN, *sid(fmt, [0, 1, 5]), END, 8, BEGIN, *sid(fmt, [0, 2, 2])]
  answer = [OPEN, *words, END, *closing(fmt, [1, 1, 1])]
  found = walk(fmt, make([[1, 1, 1]], None, shown, seen), answer, budget=16)
  assert found == [
    *({OPEN}, FREE, FREE),
    # Shown twice, but named once; [7, 7, 7] is padding.
    *({20}, {29, 30}, {38, 41}, {END}),
    *(FREE, FREE, {20}, {29, 30}, {38}, {END}),
    *(NO_CITATION, {BEGIN}, {21}, {29}, {37}, {END}, {MID}, {21}, {29}, {37}),
  ]


@pytest.mark.parametrize('budget', range(8))
def test_a_citation_begins_where_it_fits(fmt, budget):
  """Five tokens: one may begin at the places 1 .. budget - 4."""
  items = make([[0, 0, 0]], citable=[[0, 0, 0]])
  seen = walk(fmt, items, [OPEN, *[7] * budget, TOP], budget)
  late = min(budget, 4)
  want = [FREE] * (budget - late) + [NO_CITATION] * late
  assert seen == [{OPEN}, *want, {TOP}]
  if late == 4:
    words = [7] * (budget - 5) + [BEGIN, *sid(fmt, [0, 0, 0]), END]
    if len(words) == budget:
      seen = walk(fmt, items, [OPEN, *words, TOP], budget)
      assert seen[-2:] == [{END}, {TOP}], 'it ends where the budget does'


def test_without_citable_items_nothing_is_cited(fmt):
  sids = [[0, 0, 0], [1, 1, 1]]
  for items in (make(sids), make(sids, citable=sids, seen=[False] * 2)):
    seen = walk(fmt, items, [OPEN, 7, *closing(fmt, sids[1])], budget=20)
    assert seen[1:5] == [NO_CITATION, NO_CITATION, {BEGIN}, {20, 21}]


def test_top_is_forced_when_the_budget_is_spent(fmt):
  answer = [OPEN, 7, 7, *closing(fmt, [0, 0, 0]), CLOSE, EOS]
  seen = walk(fmt, make([[0, 0, 0]], citable=[[0, 0, 0]]), answer, budget=2)
  assert seen[:4] == [{OPEN}, NO_CITATION, NO_CITATION, {TOP}]
  assert len(answer) == lengths.answer(fmt.levels, 1, 2)
  assert answer.index(TOP) + 1 == lengths.words(2)


def test_no_words(fmt):
  answer = [OPEN, *closing(fmt, [0, 0, 0]), CLOSE, EOS]
  seen = walk(fmt, make([[0, 0, 0]]), answer, budget=0)
  assert seen == [{token} for token in answer]


def test_padding_of_a_short_list_is_never_named(fmt):
  sids = [[1, 2, 3], [3, 2, 1], [0, 0, 0]]
  answer = [OPEN, *closing(fmt, sids[1]), SEP, *sid(fmt, sids[0]), CLOSE, EOS]
  seen = walk(fmt, make(sids, [True, True, False]), answer, budget=0)
  assert seen[3] == {21, 23}
  assert seen[8:] == [*({i} for i in answer[8:])]


def test_candidates_with_one_sid_are_named_once_each(fmt):
  sids = [[1, 1, 1], [1, 1, 1]]
  one = sid(fmt, sids[0])
  answer = [OPEN, *closing(fmt, sids[0]), SEP, *one, CLOSE, EOS]
  seen = walk(fmt, make(sids), answer, budget=0)
  assert seen == [{token} for token in answer]


def test_banned_ids(fmt):
  table = constrain.banned(fmt, 64)
  want = {OPEN, MID, SEP, CLOSE, EOS, END, fmt.pad, *fmt.unsafe}
  want |= {*range(20, 64)}
  assert set(np.flatnonzero(table).tolist()) == want
  assert not {TOP, BEGIN} & want


@hypothesis.given(data=st.data())
@hypothesis.settings(deadline=None, max_examples=60)
def test_any_walk_through_the_machine_is_an_answer(fmt, data):
  """The machine against a plain reading of the finished answer."""
  codes = st.tuples(*[st.integers(0, 2)] * fmt.levels)
  sids = data.draw(st.lists(codes, min_size=1, max_size=4, unique=True))
  shown = data.draw(st.lists(codes, max_size=5))
  count, size = len(sids), len(shown)
  fill = lambda x, n: np.array(x + [(0, 0, 0)] * (n - len(x)), np.int32)
  mask, seen = np.arange(4) < count, np.arange(5) < size
  items = make(fill(sids, 4), mask, fill(shown, 5), seen)
  budget = data.draw(st.integers(0, 12))
  free = set(np.flatnonzero(~constrain.banned(fmt, 64)).tolist())
  tokens, state = [], constrain.start(items, 1)
  while not tokens or tokens[-1] != EOS:
    row = _allowed(state, jnp.int32(len(tokens)), items, fmt, budget)[0, 0]
    ids = read(fmt, row)
    if len(tokens) >= parts.begin(budget):
      assert ids <= {*parts.list_ids(fmt).tolist()}
    # Citations and ends often, not one time in ten.
    some = [BEGIN, *free] if ids == FREE else [7, 8, 7, TOP]
    ids = some if isinstance(ids, str) else sorted(ids)
    tokens.append(data.draw(st.sampled_from(ids)))
    state = _advance(state, jnp.full((1, 1), tokens[-1]), items, fmt)
  assert len(tokens) <= lengths.answer(fmt.levels, count, budget)

  top = tokens.index(TOP)
  words, rest = tokens[1:top], tokens[top + 1 :]
  assert tokens[0] == OPEN and len(words) <= budget
  while BEGIN in words:
    at = words.index(BEGIN)
    cited = words[at : at + fmt.levels + 2]
    assert cited in [[BEGIN, *sid(fmt, s), END] for s in shown]
    words = words[:at] + words[at + len(cited) :]
  assert set(words) <= free
  first, rest = rest[1 : fmt.levels + 1], rest[fmt.levels + 2 :]
  assert rest[: fmt.levels + 1] == [MID, *first]
  entries, rest = [], rest[1:]
  for _ in range(count):
    entries.append(tuple(rest[: fmt.levels]))
    delimiter, rest = rest[fmt.levels], rest[fmt.levels + 1 :]
    assert delimiter == (SEP if len(entries) < count else CLOSE)
  assert rest == [EOS]
  assert sorted(entries) == sorted(tuple(sid(fmt, s)) for s in sids)
