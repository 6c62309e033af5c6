"""Slates as lists: which split each falls into, and that nothing leaks."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import slates, splits

ITEMS = [dataset_lib.Item(f'i{i}', f'Film {i}') for i in range(30)]
SPLIT = splits.SplitConfig('last_n', n_test=2, n_valid=2, n_train=3)


def _made(*served, sequence=range(10), times=None):
  """One user, ten items at the times 0, 10, .., 90, and what was served."""
  times = 10 * np.arange(len(sequence)) if times is None else times
  made = dataset_lib.from_sequences('m', ITEMS, {'u': sequence}, {'u': times})
  return dataclasses.replace(
    made, slates=[dataset_lib.Slate(0, *slate) for slate in served]
  )


def _sizes(lists):
  return {name: len(part.user) for name, part in lists.items()}


def test_the_outcome_says_which_split():
  """The retriever reads 0..2; 3..5 are for training, 6 7 valid, 8 9 test."""
  made = _made(
    (15, (2, 20), (1, 0)),  # Next is item 2, which the retriever reads.
    (30, (3, 20), (1, 0)),  # The time of item 3 itself: it comes after.
    (31, (4, 21), (1, 0)),
    (35, (4, 5, 22), (1, 1, 0)),  # Both are met before validation begins.
    (35, (4, 6, 23), (1, 1, 0)),  # Item 6 is a validation target.
    (35, (4, 6, 24), (1, 0, 0)),  # As a negative it tells nothing of later.
    (35, (25, 26), (1, 0)),  # A positive that is met nowhere.
    (61, (7, 27), (2, 0)),
    (61, (7, 8), (2, 1)),  # No negative.
    (61, (7, 8, 28), (2, 1, 0)),  # Item 8 is a test target.
    (75, (9, 29), (1, 0)),
    (999, (11, 12), (0, 1)),  # After everything: tested.
    (999, (11, 12), (0, 0)),  # No positive.
  )
  lists, counts = slates.make(made, SPLIT, 4)
  assert lists['train'].candidates[:, 0].tolist() == [3, 4, 4, 4, 25]
  assert lists['train'].position.tolist() == [3, 4, 4, 4, 4]
  assert lists['valid'].candidates[:, 0].tolist() == [7]
  assert lists['test'].candidates[:, 0].tolist() == [9, 11]
  assert lists['test'].position.tolist() == [8, 10]
  assert counts == {
    'slates': 13, 'cut': 0, 'one_sided': 2, 'seen': 1, 'straddling': 2
  }  # fmt: skip


def test_a_repeated_item_counts_where_it_is_next_met():
  made = _made(
    (35, (4, 20), (1, 0)),
    (35, (1, 20), (1, 0)),
    sequence=[0, 1, 2, 3, 4, 5, 6, 1, 4, 9],
  )
  lists, counts = slates.make(made, SPLIT, 4)
  # Item 4 is met at 4 and again in test; item 1 next in validation.
  assert lists['train'].candidates[:, 0].tolist() == [4]
  assert counts['straddling'] == 1


def test_lists_are_padded_cut_and_have_the_best_graded_as_target():
  made = _made(
    (35, (20, 4), (0, 2)),
    (35, (20, 4, 5, 21), (1, 2, 2, 0)),
    (35, (20, 21, 22, 4), (0, 0, 1, 2)),
    (35, (20, 21, 22, 4), (0, 0, 0, 1)),  # Its positive is cut off.
  )
  lists, counts = slates.make(made, SPLIT, 3)
  train = lists['train']
  assert train.candidates.tolist() == [[20, 4, -1], [20, 21, 22]]
  assert train.grades.tolist() == [[0, 2, 0], [0, 0, 1]]
  assert train.target.tolist() == [1, 2]
  # Cut to 1 2 2 the second one lacks a negative.
  assert (counts['cut'], counts['one_sided']) == (3, 2)
  lists, _ = slates.make(made, SPLIT, 4)
  # Of two with grade 2 the one shown first.
  assert lists['train'].target.tolist() == [1, 1, 3, 3]


def test_columns_are_cut_and_padded_with_their_items():
  columns = lambda *rows: tuple(tuple(map(float, row)) for row in rows)
  made = dataclasses.replace(
    _made(
      (35, (20, 4), (0, 2), columns((1, 2), (10, 20))),
      (35, (20, 4, 5, 21), (1, 2, 2, 0), columns((3, 4, 5, 6), (7, 8, 9, 0))),
      (35, (21, 4, 5, 22), (0, 2, 0, 0), columns((6, 5, 4, 3), (2, 1, 0, -1))),
      (999, (11, 12), (0, 1), columns((8, 9), (0.5, 0.25))),
    ),
    slate_columns=('a', 'b'),
  )
  lists, _ = slates.make(made, SPLIT, 3)
  # The second one lacks a negative among its first three.
  assert lists['train'].columns.dtype == np.float32
  assert lists['train'].columns.tolist() == [
    [[1, 10], [2, 20], [0, 0]],
    [[6, 2], [5, 1], [4, 0]],
  ]
  assert lists['valid'].columns.shape == (0, 3, 2)
  assert lists['test'].columns.tolist() == [[[8, 0.5], [9, 0.25], [0, 0]]]
  plain, _ = slates.make(_made((35, (20, 4), (0, 2))), SPLIT, 3)
  assert plain['train'].columns.shape == (1, 3, 0)


def test_refusals():
  with pytest.raises(ValueError, match="'m' has no slates: add"):
    slates.make(_made(), SPLIT, 4)
  with pytest.raises(ValueError, match="'u' at 35 has the label 300"):
    slates.make(_made((35, (4, 20), (300, 0))), SPLIT, 4)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_nothing_held_out_is_told_to_training(data):
  """However users, times and slates fall."""
  length = data.draw(st.integers(1, 12))
  item = st.integers(0, 9)
  sequence = data.draw(st.lists(item, min_size=length, max_size=length))
  gaps = data.draw(
    st.lists(st.integers(0, 3), min_size=length, max_size=length)
  )
  times = np.cumsum(gaps)
  served = data.draw(
    st.lists(
      st.tuples(
        st.integers(0, int(times[-1]) + 2),
        st.lists(item, min_size=2, max_size=5, unique=True),
        st.lists(st.integers(0, 2), min_size=5, max_size=5),
      ),
      min_size=1,
      max_size=6,
    )
  )
  slate = lambda t, items, labels: (t, tuple(items), labels[: len(items)])
  made = _made(*(slate(*one) for one in served), sequence=sequence, times=times)
  lists, counts = slates.make(made, SPLIT, 4)
  begin, valid, test, end = splits.bounds(made.lengths, SPLIT)[0]
  stops = {'train': valid, 'valid': test, 'test': end + 1}
  starts = {'train': begin, 'valid': valid, 'test': test}
  for name, part in lists.items():
    for position, items, grades in zip(
      part.position, part.candidates, part.grades, strict=True
    ):
      assert starts[name] <= position < stops[name] and position > 0
      assert (grades > 0).any() and ((grades == 0) & (items >= 0)).any()
      # Each positive that is ever met again is first met inside the part.
      for good in items[grades > 0]:
        later = [p for p in range(position, end) if sequence[p] == good]
        assert not later or later[0] < stops[name]
  dropped = sum(counts[reason] for reason in slates.REASONS)
  assert counts['slates'] == len(served)
  assert dropped + sum(_sizes(lists).values()) == len(served)
