import decimal
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax.data import fields


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    (7, 7),
    ('7', 7),
    (7.0, 7),
    (-3, -3),
    (' 7\n', 7),
    ('1700000000.0', 1_700_000_000),
    ('9.78300760E8', 978_300_760),
    (decimal.Decimal('1700000000.000'), 1_700_000_000),
    (2.0**53, 2**53),
    (2**63 - 1, 2**63 - 1),
    # Dates, as pandas writes them: microseconds, as of Parquet.
    ('2023-11-14', 1_699_920_000_000_000),
    ('2023-11-14 22:13:20', 1_700_000_000_000_000),
    ('2023-11-14T22:13:20.000001Z', 1_700_000_000_000_001),
    ('2023-11-14 23:13:20+01:00', 1_700_000_000_000_000),
    ('1969-12-31 23:59:59', -1_000_000),
    ('20231114', 20_231_114),
  ],
)
def test_timestamps(value, expected):
  assert fields.timestamp(value, 'f:1') == expected


@pytest.mark.parametrize(
  'value',
  [
    *(None, True, '', 'noon', 0.5, 1e300, 2**63, -(2**63) - 1, float('nan')),
    # Fractions, and digits that are not there: the order would be lost.
    *('1.5', decimal.Decimal('1700000000.900'), '1.7E+09', 2.0**54),
    *(decimal.Decimal('1E+9'), decimal.Decimal('NaN'), 'inf', '9' * 5000),
    *('2023-02-30', '14.11.2023', '11/14/2023', '22:13:20', '2023-11'),
  ],
)
def test_what_is_no_timestamp(value):
  with pytest.raises(ValueError, match='f:1: timestamp is .*whole number'):
    fields.timestamp(value, 'f:1')


@pytest.mark.parametrize(
  ('value', 'expected'),
  [(None, None), ('', None), (float('nan'), None), ('5.04', 5.04), (3, 3.0)],
)
def test_prices(value, expected):
  assert fields.price(value, 'f:1') == expected


@pytest.mark.parametrize(
  'value', [-1, 'cheap', float('inf'), True, [3], 10**400]
)
def test_what_is_no_price(value):
  with pytest.raises(ValueError, match='f:1: price is'):
    fields.price(value, 'f:1')


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    ('Made of  mint.', 'Made of mint.'),
    (['Mint.', '', 'Fresh.', None], 'Mint. Fresh.'),
    ("['Mint.', \"It's fresh.\", '']", "Mint. It's fresh."),
    ('["Mint.", "Fresh."]', 'Mint. Fresh.'),
    ('[]', ''),
    (None, ''),
    # What is in brackets and no list of texts.
    ('[NEW] mint [SALE]', '[NEW] mint [SALE]'),
    ("['Mint' 'Fresh']", "['Mint' 'Fresh']"),
    ('[1990]', '[1990]'),
    ('{"a": 1}', '{"a": 1}'),
  ],
)
def test_descriptions_may_be_lists(value, expected):
  assert fields.prose(value, 'description', 'f:1') == expected


def test_what_is_no_description():
  for value in (3, [3], ['a', ['b']], '[' + 'x' * 2**20 + ']'):
    with pytest.raises(ValueError, match='f:1: description (is|has)'):
      fields.prose(value, 'description', 'f:1')


def test_entities_are_resolved():
  assert fields.unescaped('Live&nbsp;Sound &amp; Stage') == 'Live Sound & Stage'
  assert fields.unescaped('a&#10;b &#0;c AT&T') == 'a b \ufffdc AT&T'


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


@pytest.mark.parametrize(
  'value',
  [
    ['Beauty', 'Bath'],
    'Beauty|Bath',
    "['Beauty', 'Bath']",
    '["Beauty", "Bath"]',
    "('Beauty', 'Bath')",
    ' ["Beauty",\n "Bath", null, ""] ',
    "['Beauty', None, 'Bath',]",
  ],
)
def test_lists_may_be_written_as_text(value):
  found = fields.strings(value, 'categories', 'f:1')
  assert found == fields.identifiers('Beauty|Bath', 'item_ids', 'f:1')
  assert found == ('Beauty', 'Bath')


def test_lists_of_numbers_may_be_written_as_text():
  assert fields.integers('[1, 0]', 'labels', 'f:1') == (1, 0)
  assert fields.identifiers('[7, "A"]', 'item_ids', 'f:1') == ('7', 'A')
  for empty in ('[]', '', None, float('nan')):
    assert fields.integers(empty, 'labels', 'f:1') == ()
    assert fields.strings(empty, 'categories', 'f:1') == ()


@pytest.mark.parametrize(
  'value',
  [
    # NumPy prints no commas, and Python would join the two.
    "['Beauty' 'Bath']",
    "['Beauty'\n 'Bath']",
    '[Beauty]',
    '[1 0]',
    "{'Beauty', 'Bath'}",
    "['Beauty', __import__('os')]",
    '[' + '(' * 300 + ']',
  ],
)
def test_what_looks_like_a_list_and_is_none_is_refused(value):
  with pytest.raises(
    ValueError, match=r'f:1: categories is .*write \["a", "b"'
  ):
    fields.strings(value, 'categories', 'f:1')


def test_text_in_brackets_that_is_no_list_stays_text():
  for value in ('(Live) Album', '[new] Soap', 'Set (2)', '(2024)'):
    assert fields.strings(value, 'categories', 'f:1') == (value,)


def test_lists_in_lists_are_refused():
  with pytest.raises(
    ValueError, match=r"f:1: categories is \['Beauty'\]; give"
  ):
    fields.strings("[['Beauty']]", 'categories', 'f:1')


def test_missing_cells_are_empty_texts():
  assert fields.text(float('nan'), 'brand', 'f:1') == ''
  assert fields.text(None, 'brand', 'f:1') == ''


def test_decimals_without_fraction_are_ids():
  """As Parquet of databases has them."""
  assert fields.identifier(decimal.Decimal('17'), 'user_id', 'f:1') == '17'
  with pytest.raises(ValueError, match='f:1: user_id is Decimal'):
    fields.identifier(decimal.Decimal('1.5'), 'user_id', 'f:1')


_CELLS = st.one_of(
  *(st.text(), st.integers(), st.floats(), st.decimals(), st.none()),
  *(st.booleans(), st.binary(), st.lists(st.text() | st.integers())),
  st.text('[](){}\'",|1aeE+-._:\\\n #\x00', max_size=12),
  st.lists(st.text(max_size=3), max_size=3).map(str),
)


@hypothesis.settings(deadline=None, max_examples=500)
@hypothesis.given(_CELLS)
def test_any_cell_is_read_or_named(cell):
  of_columns = (
    *(fields.identifier, fields.identifiers, fields.text, fields.strings),
    *(fields.integers, fields.prose),
  )
  reads = [lambda read=read: read(cell, 'x', 'f:1') for read in of_columns]
  reads += [lambda: fields.timestamp(cell, 'f:1')]
  reads += [lambda: fields.price(cell, 'f:1')]
  for read in reads:
    try:
      read()
    except ValueError as error:
      assert type(error) is ValueError, repr(error)
      assert str(error).startswith('f:1: '), error


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.text(min_size=1), max_size=3))
def test_lists_that_python_and_json_write_are_read(texts):
  expected = fields.strings(texts, 'x', 'f:1')
  assert fields.strings(str(texts), 'x', 'f:1') == expected
  assert fields.strings(json.dumps(texts), 'x', 'f:1') == expected
