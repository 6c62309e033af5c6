import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import clean, raw
from gr2_jax.data import dataset as dataset_lib


def _raw(rows, items='abcdefgh', slates=()):
  return raw.Raw(
    [dataset_lib.Item(i, i.upper()) for i in items],
    [raw.Interaction(*row) for row in rows],
    [raw.RawSlate(*slate) for slate in slates],
  )


def _named(dataset):
  return {
    user_id: [dataset.items[i].item_id for i in dataset.sequence(u)]
    for u, user_id in enumerate(dataset.user_ids)
  }


def test_duplicates_order_and_ties_by_hand():
  dataset = clean.clean(
    'test',
    _raw(
      [
        ('v', 'c', 7),
        ('u', 'b', 5),
        ('u', 'a', 3),  # Out of order.
        ('u', 'd', 5),  # A tie: after b, as in the file.
        ('u', 'b', 5),  # A duplicate.
        ('u', 'a', 9),  # A repeat.
      ]
    ),
    core=0,
  )
  assert _named(dataset) == {'u': ['a', 'b', 'd', 'a'], 'v': ['c']}
  np.testing.assert_array_equal(dataset.timestamps, [3, 5, 5, 9, 7])
  assert dataset.num_items == 8
  assert dataset.counts == {
    'users': 2,
    'items': 8,
    'interactions': 5,
    'out_of_order': 1,
    'duplicates': 1,
    'below_core_users': 0,
    'below_core_items': 0,
    'below_core_interactions': 0,
    'repeats': 1,
    'dropped_slates': 0,
    'untitled': 0,
  }


def test_core_by_hand():
  rows = [('u', 'a', 0), ('u', 'b', 1), ('v', 'a', 0), ('v', 'b', 1)]
  # w has two interactions, but c goes first, and then w.
  rows += [('w', 'a', 0), ('w', 'c', 1)]
  dataset = clean.clean('test', _raw(rows), core=2)
  assert _named(dataset) == {'u': ['a', 'b'], 'v': ['a', 'b']}
  assert [item.item_id for item in dataset.items] == ['a', 'b']
  assert dataset.counts['below_core_users'] == 1
  assert dataset.counts['below_core_items'] == 6
  assert dataset.counts['below_core_interactions'] == 2


def test_items_know_their_place_in_the_file():
  rows = [('u', item, 0) for item in 'dba']
  dataset = clean.clean('test', _raw(rows, items='dxab'), core=1)
  assert [item.item_id for item in dataset.items] == ['a', 'b', 'd']
  np.testing.assert_array_equal(dataset.rows, [2, 3, 0])
  assert dataset.num_rows == 4


def test_nothing_left_is_an_error():
  with pytest.raises(ValueError, match='of 1 interactions none is left'):
    clean.clean('test', _raw([('u', 'a', 0)]), core=2)


def _slow_core(rows, core):
  rows = set(rows)
  while True:
    bad = {
      row
      for row in rows
      if sum(r[0] == row[0] for r in rows) < core
      or sum(r[1] == row[1] for r in rows) < core
    }
    if not bad:
      return rows
    rows -= bad


_ROWS = st.lists(
  st.tuples(
    st.sampled_from('uvwxyz'), st.sampled_from('abcde'), st.integers(0, 9)
  ),
  min_size=1,
  max_size=40,
)


@hypothesis.settings(deadline=None)
@hypothesis.given(_ROWS, st.integers(0, 4))
def test_core_is_that_of_an_independent_implementation(rows, core):
  expected = _slow_core(rows, core)
  if not expected:
    with pytest.raises(ValueError, match='lower config.data.core'):
      clean.clean('test', _raw(rows), core)
    return
  dataset = clean.clean('test', _raw(rows), core)
  found = {
    (user_id, dataset.items[item].item_id, time)
    for u, user_id in enumerate(dataset.user_ids)
    for item, time in zip(dataset.sequence(u), dataset.times(u), strict=True)
  }
  assert found == expected
  assert len(dataset.flat) == len(expected)
  for u in range(dataset.num_users):
    assert (np.diff(dataset.times(u)) >= 0).all()


@hypothesis.settings(deadline=None)
@hypothesis.given(_ROWS, st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_the_order_of_the_file(rows, random):
  # Without ties the order of the rows says nothing.
  rows = [(user, item, 10 * i) for i, (user, item, _) in enumerate(rows)]
  shuffled = list(rows)
  random.shuffle(shuffled)
  left = clean.clean('test', _raw(rows), 0)
  right = clean.clean('test', _raw(shuffled, items='hgfedcba'), 0)
  assert left.user_ids == right.user_ids
  assert left.items == right.items
  assert left.sha256 == right.sha256


def test_slates_follow_their_users_and_items():
  rows = [('u', 'a', 0), ('u', 'b', 1), ('v', 'a', 0), ('v', 'b', 1)]
  slates = [
    ('v', 9, ('b', 'a'), (0, 2), ((0.5, 0.25),)),
    ('u', 5, ('a', 'c'), (1, 0), ((1, 2),)),  # c is dropped by the core.
    ('nobody', 5, ('a',), (1,), ((3,),)),
    ('v', 3, ('a',), (1,), ((4,),)),
  ]
  made = dataclasses.replace(_raw(rows, slates=slates), slate_columns=('own',))
  dataset = clean.clean('test', made, core=2)
  assert dataset.slate_columns == ('own',)
  assert dataset.slates == [
    dataset_lib.Slate(1, 3, (0,), (1,), ((4,),)),
    dataset_lib.Slate(1, 9, (1, 0), (0, 2), ((0.5, 0.25),)),
  ]
  assert dataset.counts['dropped_slates'] == 2
