import datetime

import pytest

from gr2_jax.data import fields


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    (7, 7),
    ('7', 7),
    (7.0, 7),
    (-3, -3),
    (datetime.datetime(1970, 1, 2), 86_400_000_000),
    (
      datetime.datetime(
        1970, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))
      ),
      0,
    ),
  ],
)
def test_timestamps(value, expected):
  assert fields.timestamp(value, 'f:1') == expected


@pytest.mark.parametrize('value', [None, True, '', 'noon', 0.5, 1e300, 2**63])
def test_what_is_no_timestamp(value):
  with pytest.raises(ValueError, match='f:1: timestamp is .*whole number'):
    fields.timestamp(value, 'f:1')


@pytest.mark.parametrize(
  ('value', 'expected'),
  [(None, None), ('', None), (float('nan'), None), ('5.04', 5.04), (3, 3.0)],
)
def test_prices(value, expected):
  assert fields.price(value, 'f:1') == expected


@pytest.mark.parametrize('value', [-1, 'cheap', float('inf'), True, [3]])
def test_what_is_no_price(value):
  with pytest.raises(ValueError, match='f:1: price is'):
    fields.price(value, 'f:1')


def test_ids_and_texts():
  assert fields.identifier(17, 'item_id', 'f:1') == '17'
  assert fields.text(' a \n b ', 'title', 'f:1') == 'a b'
  assert fields.strings('a| b |', 'categories', 'f:1') == ('a', 'b')
  assert fields.integers('2|0', 'labels', 'f:1') == (2, 0)
  for value in (1.5, True, None, ''):
    with pytest.raises(ValueError, match='f:1: item_id is'):
      fields.identifier(value, 'item_id', 'f:1')
  with pytest.raises(ValueError, match='f:1: title is 3; give a text'):
    fields.text(3, 'title', 'f:1')
