"""Near duplicates, by hand and against all pairs."""

import itertools

import hypothesis
from hypothesis import strategies as st

from gr2_jax.teacher import duplicates
from tests.teacher.scripted import cite

TEXTS = st.lists(
  st.lists(st.sampled_from('abcd'), max_size=9).map(' '.join), max_size=8
)


def test_shingles():
  assert duplicates.shingles(f'A b {cite(3)} c') == {
    ('a', 'b', '§'),
    ('b', '§', 'c'),
  }
  assert duplicates.shingles('One two') == {('one', 'two')}
  assert duplicates.shingles('') == {()}


def test_the_later_one_is_found_whatever_it_cites():
  texts = [f'As {cite(i)} it is blue, so {cite(i + 1)}.' for i in range(3)]
  texts.insert(1, 'Another thing altogether.')
  assert duplicates.find(texts, 1.0) == {2, 3}
  assert duplicates.find(texts, 0.0) == set()
  assert duplicates.find([], 0.5) == set()


def test_the_threshold_by_hand():
  # Four and five shingles, four of them shared: 4 / 5.
  texts = ['a b c d e f', 'a b c d e f g']
  assert duplicates.find(texts, 0.8) == {1}
  assert duplicates.find(texts, 0.81) == set()


def test_what_was_turned_down_turns_nothing_down():
  # Each is near the one before it, the third not near the first: 4/6 and 3/7.
  texts = ['a b c d e f g', 'b c d e f g h', 'c d e f g h i']
  assert duplicates.find(texts, 0.6) == {1}
  assert duplicates.find(texts[1:], 0.6) == {1}


@hypothesis.given(texts=TEXTS, threshold=st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_it_is_exact(texts, threshold):
  sets = [duplicates.shingles(text) for text in texts]
  expected = set()
  for row, earlier in itertools.product(range(len(texts)), repeat=2):
    if earlier < row and earlier not in expected:
      shared = len(sets[row] & sets[earlier])
      if shared >= threshold * len(sets[row] | sets[earlier]) - 1e-9:
        expected.add(row)
  assert duplicates.find(texts, threshold) == expected
