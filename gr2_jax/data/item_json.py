"""Reads `X.item.json`, the items of MiniOneRec, LC-Rec and LETTER.

One JSON object, by item id, the categories with commas between them, the
description a text, or a list of its parts, which MiniOneRec spells out as text:

    {
      "0": {"title": "Rose soap", "categories": "Beauty,Bath"},
      "1": {"title": "Mint balm", "description": "['Mint.']", "categories": ""},
      "2": {"title": "Nail file", "brand": "", "categories": "Tools"},
      "3": {"title": "Red paint", "brand": "", "categories": "Beauty,Nails"},
      "4": {"title": "Hair clip"}
    }

The texts are Amazon's: entities of HTML in them are resolved.
"""

import pathlib

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import fields, raw_files


def read(path: pathlib.Path) -> dict[str, dataset_lib.Item]:
  """Reads one file of items.

  Args:
    path: the file, perhaps as `.gz`.

  Returns:
    Item by id, in the order of the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: bad input, with file, line and remedy.
  """
  items = {}
  for where, key, record in raw_files.json_entries(path):
    if not isinstance(record, dict) or 'title' not in record:
      raise ValueError(
        f'{where}: item {key!r} is {fields.shown(record)}; give an object with '
        'a title.'
      )
    categories = record.get('categories')
    if isinstance(categories, str) and not categories.startswith('['):
      categories = categories.split(',')
    categories = fields.strings(categories, 'categories', where)
    title = fields.text(record['title'], 'title', where)
    brand = fields.text(record.get('brand'), 'brand', where)
    description = fields.prose(record.get('description'), 'description', where)
    item_id = fields.identifier(key, 'an item id', where)
    items[item_id] = dataset_lib.Item(
      item_id=item_id,
      title=fields.unescaped(title),
      categories=tuple(map(fields.unescaped, categories)),
      brand=fields.unescaped(brand),
      description=fields.unescaped(description),
    )
  return items
