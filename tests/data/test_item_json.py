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


def test_texts_as_minionerec_and_lc_rec_publish_them(tmp_path):
  """Lists spelled out, entities, a path that is written in two ways."""
  found = _read(
    tmp_path,
    {
      '0': {
        'title': 'T&uuml;rlen Dial 1"',
        'description': "['Made for you. \\n', \"It's round.\", '']",
        'brand': 'B&amp;K',
        'categories': 'Live Sound &amp; Stage,Cables',
      },
      '1': {'title': 'Cable', 'categories': 'Live Sound & Stage,Cables'},
      '2': {'title': 'Words', 'description': "['', '']"},
      '3': {'title': 'Set', 'description': ['Red.', 'Blue.']},
    },
  )
  path = 'Live Sound & Stage', 'Cables'
  assert found == {
    '0': dataset_lib.Item(
      *('0', 'Türlen Dial 1"', path, 'B&K', None),
      "Made for you. It's round.",
    ),
    '1': dataset_lib.Item('1', 'Cable', path),
    '2': dataset_lib.Item('2', 'Words'),
    '3': dataset_lib.Item('3', 'Set', description='Red. Blue.'),
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
