"""Columns that lists carry: what is read, and what is refused where."""

import json

import numpy as np
import pytest

from gr2_jax.data import columns
from gr2_jax.rank import evidence

GIVEN = {'ctr': [0.1, 3], 'age': [4, -5e-3]}


def test_what_a_run_computes_is_reserved():
  assert columns.RESERVED == (*evidence.NAMES, evidence.SASREC)


@pytest.mark.parametrize('value', [GIVEN, json.dumps(GIVEN)])
def test_rows_stand_in_the_order_of_the_run(value):
  assert columns.names(value, 'f:1') == ('ctr', 'age')
  rows = columns.rows(value, ('age', 'ctr'), 2, 'f:1', 'the run')
  # As 32 bits hold them, so that what is written is what is read.
  assert rows == (
    (4.0, float(np.float32(-5e-3))),
    (float(np.float32(0.1)), 3.0),
  )


@pytest.mark.parametrize('value', [None, '', {}, '{}'])
def test_no_columns(value):
  assert columns.names(value, 'f:1') == ()
  assert columns.rows(value, (), 2, 'f:1', 'the run') == ()


@pytest.mark.parametrize('name', ['', 'a\nb', 'x' * (2**20 + 1)])
def test_names_are_plain(name):
  with pytest.raises(ValueError, match='^f:1: a name in features'):
    columns.names({name: [1]}, 'f:1')


@pytest.mark.parametrize('name', columns.RESERVED)
def test_reserved_names_are_refused(name):
  with pytest.raises(ValueError, match=f"^f:1: .*'{name}'.*rename"):
    columns.names({'ctr': [1], name: [1]}, 'f:1')


@pytest.mark.parametrize(
  'value, message',
  [
    ([[1, 2]], r'features is .*give an object'),
    ('0.5|0.7', r"features is '0.5.0.7'; give an object"),
    ('[' * 100_000, 'give an object'),
    ({'ctr': [1, 2]}, r"lacks the columns \['age'\] and has \[\]"),
    (None, r"lacks the columns \['ctr', 'age'\]"),
    ({**GIVEN, 'x': [1, 2]}, r"has \['x'\], which the run does not have"),
    ({**GIVEN, 'age': [1]}, r"features\['age'\] has 1 numbers for 2"),
    ({**GIVEN, 'age': 3}, r"features\['age'\] is 3; give a list"),
    ({**GIVEN, 'age': '34'}, r"features\['age'\] is '34'; give a list"),
    ({**GIVEN, 'age': [1, None]}, r"\['age'\] is None at place 1; give finite"),
    ({**GIVEN, 'age': [True, 1]}, r"\['age'\] is True at place 0"),
    ({**GIVEN, 'age': [1, '2']}, r"\['age'\] is '2' at place 1"),
    ({**GIVEN, 'age': [1, 1e39]}, r"\['age'\] is 1e\+39 at place 1.*32 bits"),
    ({**GIVEN, 'age': [1, 10**400]}, r"\['age'\] is 10+ at place 1"),
    ('{"ctr": [1, 2], "age": [NaN, 1]}', r"\['age'\] is nan at place 0"),
    ('{"ctr": [1, 2], "age": [1, -Infinity]}', r'is -inf at place 1'),
  ],
)
def test_other_rows_are_refused_by_place_and_name(value, message):
  with pytest.raises(ValueError, match=f'^f:1: .*{message}'):
    columns.rows(value, ('ctr', 'age'), 2, 'f:1', 'the run')


def test_a_run_without_columns_takes_none():
  with pytest.raises(ValueError, match=r"has \['ctr', 'age'\].*leave them out"):
    columns.rows(GIVEN, (), 2, 'f:1', 'the run')
