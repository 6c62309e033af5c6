import numpy as np
import pytest

from gr2_jax.data import clean, doubts, raw
from gr2_jax.data import dataset as dataset_lib

SECOND = 1_700_000_000


def _clean(rows, items=('a', 'b'), slates=()):
  found = [dataset_lib.Item(i, i) for i in items]
  rows = [raw.Interaction(*row) for row in rows]
  return clean.clean('x', raw.Raw(found, rows, slates), core=0)


def test_units_by_hand():
  times = [-5, 0, 10**8 - 1, 10**8, 10**10 - 1, 10**10, 10**11 - 1, 10**11]
  times += [SECOND * 1000**k for k in range(1, 4)]
  assert doubts.units(np.array(times)) == {
    'seconds': 2,
    'milliseconds': 2,
    'microseconds': 1,
    'nanoseconds': 1,
    'between': 2,
  }
  assert set(doubts.units(np.zeros(0, np.int64)).values()) == {0}


@pytest.mark.parametrize('scale', [1000, 10**6, 10**9])
def test_times_in_two_units_are_refused(scale):
  """In a wrong order: the first is the later one, and reads as the older."""
  rows = [('u', 'a', SECOND + 9), ('u', 'b', SECOND * scale)]
  with pytest.raises(ValueError, match="'x': the times .*1 in seconds, 1 in "):
    _clean(rows)
  slates = [raw.RawSlate('u', SECOND * scale, ('a',), (1,))]
  with pytest.raises(ValueError, match='more than one unit'):
    _clean(rows[:1], slates=slates)


@pytest.mark.parametrize(
  'times',
  [
    [SECOND, SECOND + 9, 0],
    [SECOND * 1000, 5],
    # A clock that counts from its start, and places in a sequence.
    [10**9, 10**10, 10**11, 10**12],
    [0, 1, 2, 10**8],
  ],
)
def test_other_times_are_taken(times):
  rows = [('u', 'a', time) for time in times]
  assert sorted(times) == _clean(rows).times(0).tolist()


def test_times_that_lost_digits_are_told(caplog):
  rows = [('u', 'a', SECOND + i) for i in range(19)]
  _clean(rows)
  _clean([('u', 'a', i) for i in range(20)])
  assert not caplog.records
  _clean([*rows, ('u', 'b', SECOND // 1000)])
  (record,) = caplog.records
  assert "'x': 1 of 20 times are before 1973" in record.getMessage()


def test_ids_that_look_alike_are_refused():
  rows = [('ann', 'a', 1), ('ann ', 'b', 2)]
  with pytest.raises(
    ValueError, match="user_id is 'ann' in some .* and 'ann '"
  ):
    _clean(rows)
  accents = [('Ren\u00e9', 'a', 1), ('Rene\u0301', 'b', 2)]
  with pytest.raises(
    ValueError, match=r"is 'Rene\\u0301' .* and 'Ren\\xe9' in"
  ):
    _clean(accents)
  with pytest.raises(ValueError, match=r"'ann' in some rows and 'ann\\u200b'"):
    _clean([('ann', 'a', 1), ('ann\u200b', 'b', 2)])
  with pytest.raises(ValueError, match="item_id is ' a' in some rows and 'a'"):
    _clean([('u', 'a', 1)], items=('a', ' a'))
  # Of a database that pads all alike.
  assert _clean([('ann  ', 'a ', 1)], items=('a ',)).user_ids == ['ann  ']


def test_what_says_missing_is_told(caplog):
  _clean([('ann', 'a', 1)])
  assert not caplog.records
  _clean([('nan', 'None', 1), ('ann', 'a', 2)], items=('None', 'a'))
  assert [record.getMessage()[:34] for record in caplog.records] == [
    "Data set 'x': one user_id is 'nan'",
    "Data set 'x': one item_id is 'None",
    "Data set 'x': 1 items have a title",
  ]


def test_ids_that_a_spreadsheet_rounded_are_refused():
  for user in ('1.7E+12', '1.66789e+12', '2E+15'):
    with pytest.raises(ValueError, match=f'user_id is .{user[:3]}.*all digits'):
      _clean([('ann', 'a', 1), (user, 'b', 2)])
  assert _clean([('2E15', 'a', 1), ('E+15', 'b', 2)]).num_users == 2


def test_paths_in_one_text_are_told(caplog):
  def warned(*categories):
    caplog.clear()
    found = [
      dataset_lib.Item(str(i), 'x', path) for i, path in enumerate(categories)
    ]
    doubts.warn_of_texts(found, 'x')
    return 'look like a path' in caplog.text

  assert warned(('Beauty > Bath',), ('Tools, Nails',), ())
  assert not warned(('Beauty > Bath',), ('Tools',))
  assert not warned(('Beauty, Bath',), ('Tools', 'Nails'))
  assert not warned()


def test_the_remedy_names_an_id_that_is_alike(tmp_path):
  for wrong, right in (('7.0', '7'), ('007', '7'), (' 7', '7')):
    with pytest.raises(ValueError, match=f"items, which has '{right}'; add"):
      raw.known_item(wrong, {right}, 'f:1', 'items')
  with pytest.raises(ValueError, match='record in items; add one there, or re'):
    raw.known_item('8', {'7'}, 'f:1', 'items')
