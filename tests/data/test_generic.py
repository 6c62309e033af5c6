import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import generic, raw


def _example(title):
  """Returns the lines of an example in the module's documentation."""
  text = generic.__doc__.split(f'{title}:')[1].split('\n\n')[1]
  return [line.strip() for line in text.splitlines()]


def _write(folder, name, lines):
  (folder / name).write_text(''.join(f'{line}\n' for line in lines))


@pytest.fixture
def folder(tmp_path):
  _write(tmp_path, 'items.jsonl', _example('items.jsonl'))
  _write(tmp_path, 'interactions.csv', _example('interactions.csv'))
  _write(tmp_path, 'slates.jsonl', _example('slates.jsonl'))
  return tmp_path


def test_the_documented_example_reads(folder):
  read = generic.read(folder)
  assert [item.item_id for item in read.items] == ['A1', 'A2', 'A3', 'A4', 'A5']
  assert read.items[0] == dataset_lib.Item(
    'A1', 'Rose soap', ('Beauty', 'Bath')
  )
  assert read.items[2].price == 2.0
  assert read.items[4] == dataset_lib.Item('A5', 'Hair clip', (), 'Clipp')
  assert len(read.interactions) == 5
  assert read.interactions[1] == raw.Interaction('ann', 'A4', 1700000060)
  assert read.slates == (raw.RawSlate('ann', 9, ('A2',), (1,)),)


def test_all_formats_give_the_same(folder, tmp_path_factory):
  expected = generic.read(folder)
  other = tmp_path_factory.mktemp('other')
  items = [json.loads(line) for line in _example('items.jsonl')]
  header = ['item_id', 'title', 'categories', 'brand', 'price', 'description']
  rows = [
    ','.join(
      [
        item['item_id'],
        f'"{item["title"]}"',
        '|'.join(item['categories']),
        item.get('brand', ''),
        str(item.get('price', '')),
        '',
      ]
    )
    for item in items
  ]
  _write(other, 'items.csv', [','.join(header), *rows])
  head, *lines = (line.split(',') for line in _example('interactions.csv'))
  table = {
    name: [line[i] if i < 2 else int(line[i]) for line in lines]
    for i, name in enumerate(head)
  }
  pyarrow.parquet.write_table(pa.table(table), other / 'interactions.parquet')
  _write(
    other, 'slates.csv', ['user_id,timestamp,item_ids,labels', 'ann,9,A2,1']
  )
  assert generic.read(other) == expected


@pytest.mark.parametrize('write', [str, json.dumps, '|'.join])
def test_lists_as_text_in_csv(folder, write):
  """As pandas writes them, and as JSON."""
  items = [json.loads(line) for line in _example('items.jsonl')]
  expected = generic.read(folder)
  (folder / 'items.jsonl').unlink()
  with (folder / 'items.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, ['item_id', 'title', 'categories'])
    writer.writeheader()
    for item in items:
      categories = write(item['categories'])
      writer.writerow(
        {k: item[k] for k in ('item_id', 'title')} | {'categories': categories}
      )
  found = generic.read(folder)
  assert [item.categories for item in found.items] == [
    item.categories for item in expected.items
  ]
  (folder / 'slates.jsonl').unlink()
  slate = dict(user_id='ann', timestamp=9, item_ids=write(['A2', 'A1']))
  with (folder / 'slates.csv').open('w', newline='') as file:
    labels = write(['1', '0']).replace("'", '').replace('"', '')
    slate |= {'labels': labels, 'features': str(FEATURES)}
    writer = csv.DictWriter(file, slate)
    writer.writeheader()
    writer.writerow(slate)
  (found,) = generic.read(folder).slates
  assert found.item_ids == ('A2', 'A1') and found.labels == (1, 0)
  assert found.columns == ((0.25, 0.5), (3.0, 40.0))


def test_long_texts_have_one_limit(folder):
  """Of all formats; csv's own is 131,072 characters."""
  text = 'soap ' * 40_000
  _write(
    folder,
    'items.csv',
    ['item_id,title,categories,description', f'A1,Rose,Beauty,"{text}"'],
  )
  (folder / 'items.jsonl').unlink()
  (item,) = generic.read_items(folder / 'items.csv')
  assert item.description == text.strip()
  _write(
    folder,
    'items.csv',
    ['item_id,title,categories', f'A1,"{"x" * (2**20 + 1)}",Beauty'],
  )
  with pytest.raises(ValueError, match='items.csv:2: title has 1,048,577 char'):
    generic.read_items(folder / 'items.csv')


def test_ids_of_slates_may_be_numbers(folder):
  items = [{'item_id': i, 'title': 'x', 'categories': []} for i in (1, 2)]
  _write(folder, 'items.jsonl', map(json.dumps, items))
  _write(folder, 'interactions.csv', ['user_id,item_id,timestamp', 'u,1,1'])
  slate = {'user_id': 'u', 'timestamp': 1, 'item_ids': [2, 1], 'labels': [1, 0]}
  _write(folder, 'slates.jsonl', [json.dumps(slate)])
  assert generic.read(folder).slates[0].item_ids == ('2', '1')


SLATE = {'user_id': 'ann', 'timestamp': 9, 'item_ids': ['A2', 'A1']}
FEATURES = {'ctr': [0.25, 0.5], 'age': [3, 40]}


def test_slates_bring_columns_in_all_formats(folder):
  """In the order of the first slate's names, whatever the order of others."""
  slates = [
    {**SLATE, 'labels': [1, 0], 'features': FEATURES},
    {
      **SLATE,
      'labels': [0, 2],
      'features': {'age': [5, 6], 'ctr': [-1, 1e-3]},
    },
  ]
  _write(folder, 'slates.jsonl', map(json.dumps, slates))
  expected = generic.read(folder)
  assert expected.slate_columns == ('ctr', 'age')
  assert [slate.columns for slate in expected.slates] == [
    ((0.25, 0.5), (3.0, 40.0)),
    ((-1.0, float(np.float32(1e-3))), (5.0, 6.0)),
  ]
  (folder / 'slates.jsonl').unlink()
  table = pa.Table.from_pylist(slates)
  pyarrow.parquet.write_table(table, folder / 'slates.parquet')
  assert generic.read(folder) == expected
  (folder / 'slates.parquet').unlink()
  with (folder / 'slates.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, slates[0])
    writer.writeheader()
    for slate in slates:
      writer.writerow(
        {
          **slate,
          'item_ids': '|'.join(slate['item_ids']),
          'labels': '|'.join(map(str, slate['labels'])),
          'features': json.dumps(slate['features']),
        }
      )
  assert generic.read(folder) == expected


def _slates(*features):
  """Lines of slates of two items; None is a slate without the key."""
  return [
    json.dumps(
      {**SLATE, 'labels': [1, 0], **({} if f is None else {'features': f})}
    )
    for f in features
  ]


BAD = {
  'missing columns': (
    'slates.jsonl',
    _slates(FEATURES, None),
    r"slates.jsonl:2: features lacks the columns \['ctr', 'age'\].*give every",
  ),
  'another column': (
    'slates.jsonl',
    _slates(FEATURES, FEATURES, {**FEATURES, 'x': [1, 2]}),
    r"slates.jsonl:3: features .*has \['x'\], which the first slate does not",
  ),
  'columns of a later slate only': (
    'slates.jsonl',
    _slates(None, FEATURES),
    r"slates.jsonl:2: features .*has \['ctr', 'age'\].*leave them out",
  ),
  'too few numbers': (
    'slates.jsonl',
    _slates({'ctr': [0.5]}),
    r"slates.jsonl:1: features\['ctr'\] has 1 numbers for 2 candidates; give",
  ),
  'not finite': (
    'slates.jsonl',
    _slates(FEATURES, {**FEATURES, 'age': [1, float('nan')]}),
    r"slates.jsonl:2: features\['age'\] is nan at place 1; give finite",
  ),
  'reserved column': (
    'slates.jsonl',
    _slates({'score': [1, 2]}),
    r"slates.jsonl:1: .*'score', which every run computes .*: rename",
  ),
  'a column twice': (
    'interactions.csv',
    ['user_id,item_id,item_id,timestamp', 'ann,A1,A2,1'],
    "interactions.csv:1: the column 'item_id' stands twice .*remove or rename",
  ),
  'another delimiter': (
    'interactions.csv',
    ['user_id;item_id;timestamp', 'ann;A1;1'],
    "interactions.csv:1: one column, .*';' stands between .*a comma",
  ),
  'a key twice': (
    'items.jsonl',
    ['{"item_id": "A1", "title": "x", "title": "y", "categories": []}'],
    "items.jsonl:1: not JSON .the key 'title' stands twice",
  ),
  'missing column': (
    'interactions.csv',
    ['user_id,item,timestamp', 'ann,A1,1'],
    r"interactions.csv:1: no column \['item_id'\] among .*rename",
  ),
  'missing key': (
    'items.jsonl',
    ['{"item_id": "A1", "title": "x", "categories": []}', '{"item_id": "A2"}'],
    r"items.jsonl:2: no column \['title', 'categories'\]",
  ),
  'unknown item': (
    'interactions.csv',
    ['user_id,item_id,timestamp', 'ann,A1,1', 'ann,A9,2'],
    r"interactions.csv:3: the item 'A9' has no record in items.jsonl; add",
  ),
  'empty file': ('items.jsonl', [], 'items.jsonl: the file is empty; give'),
  'no rows': (
    'interactions.csv',
    ['user_id,item_id,timestamp'],
    'interactions.csv: no rows; give',
  ),
  'not JSON': (
    'items.jsonl',
    ['{"item_id": '],
    'items.jsonl:1: not JSON .*fix',
  ),
  'one JSON array over several lines': (
    'items.jsonl',
    ['[', '  {"item_id": "A1", "title": "x", "categories": []}', ']'],
    r"items.jsonl:1: '\[' begins a JSON .*one object a line .*lines=True",
  ),
  'one JSON array, a row a line': (
    'items.jsonl',
    ['[{"item_id": "A1"},', '{"item_id": "A2"}]'],
    r"items.jsonl:1: '\[{\"item_id.* begins a JSON value over several lines",
  ),
  'no object': ('items.jsonl', ['[1, 2]'], 'items.jsonl:1: .*no JSON object'),
  'too few fields': (
    'interactions.csv',
    ['user_id,item_id,timestamp', 'ann,A1'],
    'interactions.csv:2: 2 fields where the header names 3',
  ),
  'open quote': (
    'interactions.csv',
    ['user_id,item_id,timestamp', 'ann,A1,1', '"ann,A2,2'],
    'interactions.csv:3: not CSV',
  ),
  'fraction of a second': (
    'interactions.csv',
    ['user_id,item_id,timestamp', 'ann,A1,1.5'],
    "interactions.csv:2: timestamp is '1.5'; give a whole number",
  ),
  'empty id': (
    'interactions.csv',
    ['user_id,item_id,timestamp', ',A1,1'],
    "interactions.csv:2: user_id is ''; give a text",
  ),
  'item twice': (
    'items.jsonl',
    [
      '{"item_id": "A1", "title": "x", "categories": []}',
      '{"item_id": "A1", "title": "y", "categories": []}',
    ],
    "items.jsonl:2: the item 'A1' stands at .*items.jsonl:1 already, with",
  ),
  'categories': (
    'items.jsonl',
    ['{"item_id": "A1", "title": "x", "categories": 3}'],
    'items.jsonl:1: categories is 3; give a list',
  ),
  'price': (
    'items.jsonl',
    ['{"item_id": "A1", "title": "x", "categories": [], "price": "$5"}'],
    r"items.jsonl:1: price is '\$5'; give a number",
  ),
  'labels': (
    'slates.jsonl',
    ['{"user_id": "u", "timestamp": 1, "item_ids": ["A1"], "labels": [1, 0]}'],
    'slates.jsonl:1: 2 labels for 1 items',
  ),
  'negative label': (
    'slates.jsonl',
    ['{"user_id": "u", "timestamp": 1, "item_ids": ["A1"], "labels": [-1]}'],
    r'slates.jsonl:1: labels is \[-1\]; give',
  ),
  'slate with an item twice': (
    'slates.jsonl',
    [
      '{"user_id": "u", "timestamp": 1, "item_ids": ["A1", "A1"],'
      ' "labels": [1, 0]}'
    ],
    'slates.jsonl:1: .*names an item twice',
  ),
  'slate of unknown item': (
    'slates.jsonl',
    ['{"user_id": "u", "timestamp": 1, "item_ids": ["A7"], "labels": [0]}'],
    "slates.jsonl:1: the item 'A7' has no record",
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_reported_with_file_line_and_remedy(folder, case):
  name, lines, message = BAD[case]
  _write(folder, name, lines)
  with pytest.raises(ValueError, match=message):
    generic.read(folder)


def test_bad_bytes_are_reported(folder):
  (folder / 'items.jsonl').write_bytes(b'{"item_id": "\xff"}\n')
  with pytest.raises(ValueError, match='items.jsonl:1: .*UTF-8'):
    generic.read(folder)
  (folder / 'items.jsonl').rename(folder / 'items.jsonl.gz')
  with pytest.raises(ValueError, match='items.jsonl.gz:1: .*gzip'):
    generic.read(folder)
  (folder / 'items.jsonl.gz').rename(folder / 'items.parquet')
  with pytest.raises(ValueError, match='items.parquet: not a Parquet file'):
    generic.read(folder)


def test_missing_and_doubled_files_are_named(folder):
  _write(folder, 'items.csv', ['item_id,title,categories'])
  with pytest.raises(ValueError, match='items.jsonl.*items.csv.*leave one'):
    generic.read(folder)
  (folder / 'interactions.csv').unlink()
  (folder / 'items.csv').unlink()
  with pytest.raises(FileNotFoundError, match='no file of interactions'):
    generic.read(folder)
  with pytest.raises(FileNotFoundError, match='no such folder'):
    generic.read(folder / 'absent')
