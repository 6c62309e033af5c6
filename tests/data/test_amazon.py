import gzip
import html
import json
import pathlib

import pytest

from gr2_jax.data import amazon, generic, raw
from gr2_jax.data import dataset as dataset_lib

BEAUTY = (
  pathlib.Path(__file__).resolve().parents[3] / 'shared/data/amazon_beauty_2014'
)

META = """\
{'asin': 'B1', 'title': "Rose &amp; Co's soap", 'price': 5.04, \
'categories': [['Beauty'], ['Beauty', 'Bath', 'Soap']], 'brand': 'Rose'}
{'asin': 'B9', 'title': 'nobody reviewed it', 'categories': [['Beauty']]
{'asin': 'B2', 'categories': [['Beauty', 'Tools']], 'description': 'A "file"'}
"""


def _reviews(*rows):
  return ''.join(
    json.dumps(
      {'reviewerID': user, 'asin': item, 'unixReviewTime': time, 'overall': 5.0}
    )
    + '\n'
    for user, item, time in rows
  )


def _write(folder, reviews, meta=META):
  for name, text in (
    ('reviews_Beauty_5.json.gz', reviews),
    ('meta_Beauty.json.gz', meta),
  ):
    (folder / name).write_bytes(gzip.compress(text.encode()))


def test_reviews_and_python_literals(tmp_path):
  _write(tmp_path, _reviews(('u', 'B2', 7), ('v', 'B1', 3)))
  read = amazon.read(tmp_path)
  assert read.interactions == [
    raw.Interaction('u', 'B2', 7),
    raw.Interaction('v', 'B1', 3),
  ]
  assert read.items == (
    dataset_lib.Item(
      'B1', "Rose & Co's soap", ('Beauty', 'Bath', 'Soap'), 'Rose', 5.04
    ),
    dataset_lib.Item('B2', '', ('Beauty', 'Tools'), description='A "file"'),
  )


@pytest.mark.parametrize(
  ('reviews', 'meta', 'message'),
  [
    (
      _reviews(('u', 'B7', 1)),
      META,
      "reviews_Beauty_5.json.gz:1: the item 'B7' has no record in meta_Beauty",
    ),
    (
      _reviews(('u', 'B9', 1)),
      META,
      'meta_Beauty.json.gz:2: not a Python literal .*fix or remove',
    ),
    (
      _reviews(('u', 'B1', 1)),
      '{"title": "no asin"}\n',
      'meta_Beauty.json.gz:1: not a Python literal with an asin',
    ),
    (
      _reviews(('u', 'B1', 1)),
      "{'asin': 'B1', 'categories': 'Beauty'}\n",
      'meta_Beauty.json.gz:1: categories is .*list of paths',
    ),
    ('{"asin": "B1"}\n', META, r"reviews_.*:1: no column \['reviewerID'"),
    ('', META, 'reviews_Beauty_5.json.gz: the file is empty'),
  ],
)
def test_bad_input(tmp_path, reviews, meta, message):
  _write(tmp_path, reviews, meta)
  with pytest.raises(ValueError, match=message):
    amazon.read(tmp_path)


def test_a_cut_off_archive(tmp_path):
  _write(tmp_path, _reviews(*(('u', f'B{i}', i) for i in range(1000))))
  path = tmp_path / 'reviews_Beauty_5.json.gz'
  path.write_bytes(path.read_bytes()[:-200])
  with pytest.raises(ValueError, match='reviews_.*fetch it again'):
    amazon.read(tmp_path)


def test_exactly_one_pair_of_files(tmp_path):
  with pytest.raises(FileNotFoundError, match='0 files match reviews_'):
    amazon.read(tmp_path)
  _write(tmp_path, _reviews(('u', 'B1', 1)))
  (tmp_path / 'meta_Toys.json').write_text('')
  with pytest.raises(FileNotFoundError, match='2 files match meta_'):
    amazon.read(tmp_path)


META_2018 = [
  {
    'category': ['Beauty', 'Bath &amp; Body'],
    'description': ['With', 'rose.'],
    'title': 'Rose \U0001f9fc',
    'brand': 'Rosa',
    'price': '$1,005.04',
    'asin': '0001388703',
  },
  {'category': ['Beauty'], 'title': 'Balm', 'price': None, 'asin': 'B2'},
  {'category': [], 'title': 'File', 'price': '$1.00 - $2.50', 'asin': 'B3'},
  {'title': 'var t = (new Date()).getTime();\nuet(t);', 'asin': 'B5'},
]


def _json(rows):
  return ''.join(json.dumps(row) + '\n' for row in rows)


def test_2018(tmp_path):
  """Flat paths under another key, prices as text, gaps and repeats."""
  repeat = {'category': ['Tools'], 'title': 'Another', 'asin': 'B2'}
  ids = '0001388703', 'B2', 'B3', 'B4', 'B5'
  rows = [('u', item, time) for time, item in enumerate(ids)]
  (tmp_path / 'Beauty_5.json').write_text(_reviews(*rows))
  (tmp_path / 'meta_Beauty.json').write_text(_json([*META_2018, repeat]))
  read = amazon.read(tmp_path, 2018)
  assert read.items == (
    dataset_lib.Item(
      *('0001388703', 'Rose \U0001f9fc', ('Beauty', 'Bath & Body'), 'Rosa'),
      *(1005.04, 'With rose.'),
    ),
    dataset_lib.Item('B2', 'Balm', ('Beauty',)),
    dataset_lib.Item('B3', 'File', ()),
    # A script in the place of the title, as it is published.
    dataset_lib.Item('B5', '', ()),
  )
  assert [row.item_id for row in read.interactions] == [
    *('0001388703', 'B2', 'B3', 'B5'),
  ]


@pytest.mark.parametrize(
  'record',
  [
    {'category': ['Beauty', 'Bath']},
    {'categories': [['Beauty', 'Bath']], 'price': None},
    {'categories': ['Beauty', 'Bath']},
    {'categories': ['Beauty', 'Bath'], 'price': f'${"9" * 400}'},
  ],
)
def test_metadata_of_other_years_and_in_strict_json(tmp_path, record):
  (tmp_path / 'reviews_X_5.json').write_text(_reviews(('u', 'B1', 1)))
  text = json.dumps({'asin': 'B1', 'title': 'Soap \U0001f9fc', **record})
  (tmp_path / 'meta_X.json').write_text(text)
  assert amazon.read(tmp_path).items == (
    dataset_lib.Item('B1', 'Soap \U0001f9fc', ('Beauty', 'Bath')),
  )


def test_2023(tmp_path):
  rows = [
    {'user_id': 'u', 'asin': 'V1', 'parent_asin': 'P1', 'timestamp': 2000},
    {'user_id': 'u', 'asin': 'V2', 'parent_asin': 'P2', 'timestamp': 1999},
    {'user_id': 'v', 'asin': 'V3', 'parent_asin': 'P3', 'timestamp': 1},
  ]
  meta = [
    {'parent_asin': 'P2', 'title': 'B', 'categories': [], 'price': None},
    {
      'main_category': 'All Beauty',
      'title': 'A',
      'price': 9.5,
      'store': 'Rosa',
      'categories': ['Beauty', 'Lips'],
      'description': [],
      'details': {'Brand': 'x'},
      'parent_asin': 'P1',
    },
  ]
  (tmp_path / 'All_Beauty.jsonl').write_text(_json(rows))
  path = tmp_path / 'meta_All_Beauty.jsonl.gz'
  path.write_bytes(gzip.compress(_json(meta).encode()))
  read = amazon.read(tmp_path, 2023)
  assert read.interactions == [
    raw.Interaction('u', 'P1', 2000),
    raw.Interaction('u', 'P2', 1999),
  ]
  assert read.items[1] == dataset_lib.Item(
    'P1', 'A', ('Beauty', 'Lips'), 'Rosa', 9.5
  )
  text = 'user_id,parent_asin,rating,timestamp\nw,P2,5.0,1588615855070\n'
  (tmp_path / 'All_Beauty.csv').write_text(text)
  assert amazon.read(tmp_path, 2023).interactions == [
    raw.Interaction('w', 'P2', 1588615855070)
  ]
  (tmp_path / 'All_Beauty.csv').unlink()
  (tmp_path / 'All_Beauty.jsonl').write_text(_json(rows[2:]))
  with pytest.raises(ValueError, match="jsonl:1: the item 'P3' has no record"):
    amazon.read(tmp_path, 2023)


@pytest.mark.slow
def test_all_of_beauty_written_as_the_raw_files_reads_the_same(tmp_path):
  if not BEAUTY.exists():
    pytest.skip(f'{BEAUTY} is missing')
  plain = generic.read(BEAUTY)
  reviews = _reviews(*plain.interactions)
  meta = []
  for item in plain.items:
    record = {'asin': item.item_id, 'title': html.escape(item.title)}
    record['categories'] = [['Beauty'], list(item.categories)]
    for name in ('brand', 'description'):
      if getattr(item, name):
        record[name] = html.escape(getattr(item, name))
    if item.price is not None:
      record['price'] = item.price
    meta.append(repr(record) + '\n')
  _write(tmp_path, reviews, ''.join(meta))
  read = amazon.read(tmp_path)
  assert len(read.interactions) == 198_502
  assert list(read.interactions) == list(plain.interactions)
  by_id = lambda items: sorted(items, key=lambda item: item.item_id)
  assert by_id(read.items) == by_id(plain.items)
