"""Parsing on token ids: answers by hand, damage, and a scanner in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.rl.parse import parse_ranking
from gr2_jax.text.answer import AnswerFormat

PAD, EOS, QUOTE = 0, 1, 5
OPEN, MID, SEP, CLOSE = 10, 11, 12, 13
TOP, BEGIN, END = 14, 15, 16
FMT = AnswerFormat(
  open=OPEN, mid=MID, sep=SEP, close=CLOSE, eos=EOS, pad=PAD,
  top=TOP, sid_begin=BEGIN, sid_end=END,
  sid_offset=20, levels=2, codes=4, unsafe=(QUOTE,),
)  # fmt: skip
T = 20
CANDIDATES = np.array([[0, 1], [0, 2], [3, 1]], np.int32)

_parse = jax.jit(parse_ranking, static_argnames='fmt')


def _sid(row):
  return [20 + row[0], 24 + row[1]]


def _answer(order, explanation=(7, 8), candidates=CANDIDATES):
  tokens = [OPEN, *explanation, MID]
  for place, index in enumerate(order):
    tokens += [SEP] if place else []
    tokens += _sid(candidates[index])
  return [*tokens, CLOSE, EOS]


def _scan(tokens, candidates):
  """What the list reads, as a reader of tokens from left to right."""
  k = len(candidates)
  places = {}
  if EOS in tokens:
    tokens = tokens[: tokens.index(EOS) + 1]
  if MID not in tokens:
    return [k] * k, False
  head, body = tokens[: tokens.index(MID)], tokens[tokens.index(MID) + 1 :]
  good = bool(head) and head[0] == OPEN
  good &= not set(head[1:]) & {OPEN, SEP, CLOSE, EOS, PAD, QUOTE}
  names = [tuple(_sid(c)) for c in candidates]
  for place in range(k):
    entry, rest = tuple(body[:2]), body[2:]
    if entry in names and names.index(entry) not in places:
      places[names.index(entry)] = place
    else:
      good = False
    good &= rest[:1] == [CLOSE if place == k - 1 else SEP]
    body = rest[1:]
  good &= body == [EOS]
  return [places.get(i, k) for i in range(k)], good


def _run(rows, candidates=CANDIDATES, **kwargs):
  tokens = np.full((len(rows), T), PAD, np.int32)
  for i, row in enumerate(rows):
    tokens[i, : len(row)] = row[:T]
  sids = np.broadcast_to(candidates, (len(rows), *candidates.shape))
  positions, valid = _parse(tokens, sids, fmt=FMT, **kwargs)
  return np.asarray(positions), np.asarray(valid)


def test_by_hand():
  positions, valid = _run([_answer([2, 0, 1]), _answer([0, 1, 2], ())])
  # Candidate 2 comes first, then 0, then 1; an empty explanation is JSON.
  np.testing.assert_array_equal(positions, [[1, 2, 0], [0, 1, 2]])
  assert valid.all()


@pytest.mark.parametrize(
  'damage',
  [
    lambda a: a[:-1],  # no EOS: cut off
    lambda a: a[1:],  # no opening delimiter
    lambda a: [t for t in a if t != MID],
    lambda a: a[:1] + [QUOTE] + a[1:],  # a bare quote in the string
    lambda a: a[:1] + [OPEN] + a[1:],
    lambda a: a[:1] + [PAD] + a[1:],
    lambda a: a[:-2] + [SEP, EOS],  # another SID was promised
    lambda a: a[:-1] + [7, EOS],  # text after the closing delimiter
    lambda a: a[:4] + [20, 25] + a[6:],  # the first candidate twice
    lambda a: a[:4] + [23, 27] + a[6:],  # an SID that is no candidate
    lambda a: a[:-5] + [CLOSE, EOS],  # a list one short
    lambda a: a[:-2] + [SEP, 20, 25, CLOSE, EOS],  # one too many
    lambda a: a[:6] + [7] + a[6:],  # text inside the list
    lambda a: [],
  ],
)
def test_damaged_answers_are_invalid(damage):
  whole = _answer([2, 0, 1])
  _, valid = _run([whole, damage(whole)])
  np.testing.assert_array_equal(valid, [True, False])


def test_explanations_may_cite_semantic_ids():
  positions, valid = _run([_answer([1, 0, 2], (7, *_sid([3, 1]), 8))])
  assert valid[0]
  np.testing.assert_array_equal(positions, [[1, 0, 2]])


def test_missing_candidates_get_k():
  cut = _answer([2, 0, 1])[:9]
  positions, valid = _run([cut])
  np.testing.assert_array_equal(positions, [[1, 3, 0]])
  assert not valid[0]


def test_short_lists_by_candidate_mask():
  short = _answer([1, 0])
  mask = np.array([[True, True, False]] * 2)
  positions, valid = _run([short, _answer([1, 0, 2])], candidate_mask=mask)
  np.testing.assert_array_equal(positions, [[1, 0, 3], [1, 0, 3]])
  np.testing.assert_array_equal(valid, [True, False])


def test_the_mask_says_what_was_generated():
  whole = _answer([0, 1, 2])
  mask = np.arange(T)[None] < np.array([len(whole), len(whole) - 1])[:, None]
  # The second answer was cut before its EOS: what stands there does not count.
  _, valid = _run([whole, whole], mask=mask)
  np.testing.assert_array_equal(valid, [True, False])


def test_grouped_tokens_share_candidates():
  rows = [_answer([2, 0, 1]), _answer([0, 2, 1])]
  tokens = np.full((1, 2, T), PAD, np.int32)
  for i, row in enumerate(rows):
    tokens[0, i, : len(row)] = row
  positions, valid = _parse(tokens, CANDIDATES[None, None], fmt=FMT)
  np.testing.assert_array_equal(positions, [[[1, 2, 0], [0, 2, 1]]])
  assert valid.all()


def test_levels_must_agree():
  with pytest.raises(ValueError, match='levels'):
    parse_ranking(jnp.zeros((1, T), int), jnp.zeros((1, 3, 4), int), FMT)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_equals_a_scanner(data):
  """Random edits of random answers read the same in jit and in Python."""
  order = data.draw(st.permutations([0, 1, 2]))
  text = st.sampled_from([7, 8, 9, 20, 25, 27])
  tokens = _answer(order, data.draw(st.lists(text, max_size=4)))
  token = st.sampled_from([OPEN, MID, SEP, CLOSE, EOS, PAD, QUOTE, 7, 20, 25])
  for _ in range(data.draw(st.integers(0, 2))):
    at = data.draw(st.integers(0, len(tokens) - 1))
    edit = data.draw(st.sampled_from(['drop', 'put', 'swap']))
    tokens = tokens[:at] + {
      'drop': [],
      'put': [data.draw(token), tokens[at]],
      'swap': [data.draw(token)],
    }[edit] + tokens[at + 1 :]  # fmt: skip
    tokens = tokens or [PAD]
  padded = (tokens + [PAD] * T)[:T]
  positions, valid = _run([padded])
  expected, good = _scan(padded, CANDIDATES)
  assert bool(valid[0]) == good
  if good:
    assert positions[0].tolist() == expected
