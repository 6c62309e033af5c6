import json

import pytest

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import item_json


def _read(folder, value):
  path = folder / 'X.item.json'
  path.write_text(json.dumps(value, indent=2))
  return item_json.read(path)


def test_categories_are_lists_or_have_commas(tmp_path):
  found = _read(
    tmp_path,
    {
      '0': {'title': 'Rose', 'brand': 'Rosa', 'categories': 'Beauty, Bath'},
      '1': {'title': 'Mint', 'categories': ['Beauty, Care']},
      '2': {'title': 'Nail', 'categories': "['Tools, old']"},
      '3': {'title': '', 'categories': '', 'description': 'x'},
    },
  )
  assert found == {
    '0': dataset_lib.Item('0', 'Rose', ('Beauty', 'Bath'), 'Rosa'),
    '1': dataset_lib.Item('1', 'Mint', ('Beauty, Care',)),
    '2': dataset_lib.Item('2', 'Nail', ('Tools, old',)),
    '3': dataset_lib.Item('3', '', (), description='x'),
  }


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    ({'0': {'title': 'x'}, '1': {}}, "json:5: item '1' is {}; give an object"),
    ({'0': {'title': 3}}, 'json:2: title is 3; give a text'),
    ({'': {'title': 'x'}}, "json:2: an item id is ''"),
  ],
)
def test_bad_items(tmp_path, value, message):
  with pytest.raises(ValueError, match=message):
    _read(tmp_path, value)
