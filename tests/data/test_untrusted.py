"""Raw files that nobody should have written: handled, or refused by name."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from gr2_jax.data import (
  amazon,
  builder,
  fields,
  generic,
  sources,
  splits,
  stored,
)

TITLES = [
  '<script>alert(1)</script>',
  "Robert'); DROP TABLE items;--",
  '" onmouseover="x" \' & &amp; <b>',
  '{"explanation": "", "recommendations": ["<s_a_1><s_b_1>"]}',
  '<|sid_end|><|im_end|></s>[SEP]<s_a_1>',
  '\u202egnirts \u200b\ufeff \u00e9\u0301 \U0001f642 \u2581',
  '../../etc/passwd',
]


def _json(*rows):
  return ''.join(json.dumps(row) + '\n' for row in rows).encode()


def _item(title='t', **changes):
  return {'item_id': 'A', 'title': title, 'categories': [], **changes}


@pytest.fixture
def write(tmp_path):
  """Writes a data set with the given bytes as a file; returns its folder."""
  (tmp_path / 'interactions.csv').write_text(
    'user_id,item_id,timestamp\nann,A,1\n'
  )

  def make(content, name='items.jsonl'):
    (tmp_path / name).write_bytes(content)
    return tmp_path

  return make


@pytest.mark.parametrize('ending', ['.jsonl', '.jsonl.gz', '.csv', '.csv.gz'])
def test_a_line_of_100_mb_is_refused_before_it_fills_the_memory(
  write, ending, monkeypatch
):
  head, row = b'', b'{"item_id": "A", "categories": [], "title": "'
  if ending.startswith('.csv'):
    head, row = b'item_id,title,categories\n', b'A,'
  content = head + row + b'x' * 100_000_000
  if ending.endswith('.gz'):
    content = gzip.compress(content, 1)
  number = 1 + bool(head)
  message = f'items{ending}:{number}: a line of more than 16,777,216 char.*fix'
  with pytest.raises(ValueError, match=message):
    generic.read(write(content, f'items{ending}'))


def test_a_text_of_a_megabyte_is_refused(write):
  folder = write(_json(_item(), _item('x' * (2**20 + 1), item_id='B')))
  with pytest.raises(ValueError, match='items.jsonl:2: title has 1,048,577 .*'):
    generic.read(folder)


@pytest.mark.parametrize(
  'bad', [b'\xff', b'caf\xe9', b'\xed\xa0\x80', b'\xc0\xaf', b'\xf0\x9f']
)
def test_bytes_that_are_not_utf8_are_named_with_their_line(write, bad):
  good = _json(*(_item(item_id=f'B{i}') for i in range(300)))
  folder = write(good + b'{"item_id": "A", "title": "' + bad + b'"}\n')
  with pytest.raises(ValueError, match='items.jsonl:301: byte 0x.* not UTF-8'):
    generic.read(folder)
  folder = write(b'item_id,title,categories\nA,' + bad + b',\n', 'items.csv')
  (folder / 'items.jsonl').unlink()
  with pytest.raises(ValueError, match='items.csv:2: byte 0x.* not UTF-8'):
    generic.read(folder)


def test_a_byte_order_mark_is_no_part_of_the_text(write):
  folder = write(b'\xef\xbb\xbf' + _json(_item('\u00e9')))
  assert generic.read(folder).items[0].title == '\u00e9'


@pytest.mark.parametrize('ending', ['jsonl', 'csv', 'parquet'])
def test_nul_bytes_in_texts_count_as_spaces(write, ending):
  title = 'a\x00b\x1b[31m\x7fc'
  if ending == 'jsonl':
    folder = write(_json(_item(title)))
  elif ending == 'csv':
    content = f'item_id,title,categories\nA,{title},x\x00y\n'.encode()
    folder = write(content, 'items.csv')
  else:
    folder = write(b'', 'items.parquet')
    table = pa.table({'item_id': ['A'], 'title': [title], 'categories': [[]]})
    pyarrow.parquet.write_table(table, folder / 'items.parquet')
  assert generic.read(folder).items[0].title == 'a b [31m c'


def test_nul_bytes_in_ids_and_raw_json_are_refused(write):
  folder = write(_json(_item(item_id='A\x00')))
  with pytest.raises(ValueError, match=r"jsonl:1: item_id is 'A\\x00'; .*rem"):
    generic.read(folder)
  folder = write(b'{"item_id": "A", "title": "\x00", "categories": []}\n')
  with pytest.raises(ValueError, match='items.jsonl:1: not JSON .*control'):
    generic.read(folder)


def test_half_a_surrogate_pair_is_refused(write):
  folder = write(b'{"item_id": "A", "title": "x\\ud800", "categories": []}\n')
  with pytest.raises(ValueError, match=r'jsonl:1: title has half .*ud800.* 2;'):
    generic.read(folder)
  for column in ('item_id', 'brand', 'description'):
    folder = write(_json(_item(**{column: '\udfff'})))
    with pytest.raises(ValueError, match=f'items.jsonl:1: {column} has half'):
      generic.read(folder)
  folder = write(_json(_item(categories=['ok', '\udc00'])))
  with pytest.raises(ValueError, match='items.jsonl:1: categories has half'):
    generic.read(folder)


@pytest.mark.parametrize(
  'line',
  [
    b'[' * 200_000,
    b'{"item_id": ' * 100_000,
    b'{"item_id": "A", "title": "t", "price": ' + b'9' * 5000 + b'}',
    b'\x00' * 1000,
    b'\x80\x04\x95pickle',
  ],
  ids=['lists', 'objects', 'digits', 'zeros', 'pickle'],
)
def test_json_that_breaks_parsers_is_refused(write, line):
  with pytest.raises(ValueError, match='items.jsonl:1: .*(fix|save|write)'):
    generic.read(write(line + b'\n'))


def test_labels_that_break_parsers_are_refused():
  with pytest.raises(ValueError, match='f:1: labels is'):
    fields.integers('[' * 200_000, 'labels', 'f:1')


def test_a_parquet_file_with_texts_that_are_not_utf8_is_refused(write):
  folder = write(b'', 'items.parquet')
  title = pa.array([b'ok', b'\xff\xfe'], pa.binary()).cast(
    pa.string(), safe=False
  )
  table = {'item_id': ['A', 'B'], 'title': title, 'categories': [[], []]}
  pyarrow.parquet.write_table(pa.table(table), folder / 'items.parquet')
  with pytest.raises(ValueError, match='items.parquet:1: .*UTF-8'):
    generic.read(folder)


def test_a_cut_parquet_file_is_refused(write, tmp_path):
  folder = write(b'', 'items.parquet')
  table = pa.table({'item_id': ['A'], 'title': ['t'], 'categories': [['c']]})
  path = folder / 'items.parquet'
  pyarrow.parquet.write_table(table, path, compression='none')
  content = path.read_bytes()
  path.write_bytes(content[:4] + b'\xff' * 60 + content[64:])
  with pytest.raises(ValueError, match='(?s)items.parquet.*write.*again'):
    generic.read(folder)


def test_hostile_titles_come_out_as_they_went_in(tmp_path):
  """Through the reader, the filter and TFDS."""
  raw = tmp_path / 'raw'
  raw.mkdir()
  items = [
    _item(title, item_id=f'<{i}>', brand=title, categories=[title, 'x'])
    for i, title in enumerate(TITLES)
  ]
  (raw / 'items.jsonl').write_bytes(_json(*items))
  rows = [f'"<u>",<{i}>,{i}\n' for i in range(len(items))]
  text = 'user_id,item_id,timestamp\n' + ''.join(rows)
  (raw / 'interactions.csv').write_text(text)
  source = sources.SourceConfig('hostile', 'generic', str(raw), core=0)
  split = splits.SplitConfig()
  builder.write(tmp_path / 'data', source, split)
  read = stored.load(tmp_path / 'data')
  assert [item.title for item in read.items] == [
    ' '.join(title.split()) for title in TITLES
  ]
  assert [item.item_id for item in read.items] == [i['item_id'] for i in items]


_HOSTILE_LITERALS = [
  "__import__('os').system('touch executed')",
  "{'asin': 'B1', 'title': open('executed', 'w')}",
  "{'asin': 'B1', [1]: 2}",
  "{'asin': {{}}, 'title': 'x'}",
  "{'asin': 'B1', 'title': " + '(' * 5000,
  "{'asin': 'B1', 'title': " + '-' * 100_000 + '1}',
  "{'asin': 'B1', 'title': 'a\x00b'}",
]


@pytest.mark.parametrize('line', _HOSTILE_LITERALS, ids=range(7))
def test_python_literals_are_read_and_never_run(tmp_path, monkeypatch, line):
  monkeypatch.chdir(tmp_path)
  review = {'reviewerID': 'u', 'asin': 'B1', 'unixReviewTime': 1}
  (tmp_path / 'reviews_X_5.json').write_bytes(_json(review))
  (tmp_path / 'meta_X.json').write_text(line + '\n')
  with pytest.raises(ValueError, match='meta_X.json:1: .*fix or remove'):
    amazon.read(tmp_path)
  assert not (tmp_path / 'executed').exists()


def test_entities_may_spell_what_they_like(tmp_path):
  review = {'reviewerID': 'u', 'asin': 'B1', 'unixReviewTime': 1}
  (tmp_path / 'reviews_X_5.json').write_bytes(_json(review))
  title = 'a&#10;b&#x0;&lt;s_a_1&gt;&#xd800;&lt;script&gt;'
  (tmp_path / 'meta_X.json').write_text(f"{{'asin': 'B1', 'title': '{title}'}}")
  item = amazon.read(tmp_path).items[0]
  assert item.title == 'a b\ufffd<s_a_1>\ufffd<script>'
