"""All readers: their documented examples, damaged files, and any bytes."""

import gzip
import io
import json
import random
import re
import shutil

import hypothesis
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import strategies as st

from gr2_jax import progress
from gr2_jax.data import (
  amazon,
  generic,
  item_json,
  minionerec,
  movielens,
  movielens_1m,
  movielens_csv,
  recbole,
  sources,
  tiger,
)


def _block(module, begin):
  """Returns the lines of an example, from the one that begins so."""
  lines = module.__doc__.splitlines()
  first = next(
    i for i, line in enumerate(lines) if line.strip().startswith(begin)
  )
  found = []
  for line in lines[first:]:
    if not line.startswith('    '):
      break
    found.append(line[4:])
  return found


def _text(lines):
  return ''.join(f'{line}\n' for line in lines).encode()


def _parquet(rows):
  stream = io.BytesIO()
  # As Spark's, with a checksum of each page; small pages are not compressed.
  pyarrow.parquet.write_table(
    pa.Table.from_pylist(rows), stream, write_page_checksum=True
  )
  return stream.getvalue()


def _generic():
  items = _block(
    generic,
    '{"item_id": "A1", "title": "Rose soap", "categories": ["Beauty", "Bath"]}',
  )
  rows = _block(generic, 'user_id,item_id,timestamp')
  slates = _block(
    generic,
    '{"user_id": "ann", "timestamp": 9, "item_ids": ["A2"], "labels": [1]}',
  )
  plain = {
    'items.jsonl': _text(items),
    'interactions.csv': _text(rows),
    'slates.jsonl': _text(slates),
  }
  head, *cells = (row.split(',') for row in rows)
  records = [json.loads(line) for line in items]
  table = {
    'items.parquet': _parquet(
      [{**r, 'price': r.get('price')} for r in records]
    ),
    'interactions.parquet': _parquet(
      [
        {**dict(zip(head, c, strict=True)), 'timestamp': int(c[2])}
        for c in cells
      ]
    ),
    'slates.parquet': _parquet([json.loads(line) for line in slates]),
  }
  lists = [
    'item_id,title,categories',
    *(f'{r["item_id"]},{r["title"]},"{r["categories"]}"' for r in records),
  ]
  zipped = {
    'items.csv.gz': gzip.compress(_text(lists), mtime=0),
    'interactions.csv.gz': gzip.compress(_text(rows), mtime=0),
  }
  return {
    'generic': ('generic', plain),
    'generic parquet': ('generic', table),
    'generic gz': ('generic', zipped),
  }


def _amazon():
  reviews = _block(
    amazon, '{"reviewerID": "U1", "asin": "B1", "unixReviewTime": 1355788800}'
  )
  rose, balm, new_rose = _block(
    amazon,
    "{'asin': 'B1', ",
  )
  new = [json.loads(line) for line in reviews]
  new = [
    {'user_id': r['reviewerID'], 'parent_asin': 'B1', 'timestamp': i}
    for i, r in enumerate(new)
  ]
  return {
    'amazon2014': (
      'amazon2014',
      {
        'reviews_X_5.json': _text(reviews),
        'meta_X.json': _text([rose, balm]),
      },
    ),
    'amazon2018': (
      'amazon2018',
      {
        'X_5.json.gz': gzip.compress(_text(reviews), mtime=0),
        'meta_X.json.gz': gzip.compress(_text([rose, balm]), mtime=0),
      },
    ),
    'amazon2023': (
      'amazon2023',
      {
        'X.jsonl': _text(map(json.dumps, new)),
        'meta_X.jsonl': _text([new_rose]),
      },
    ),
  }


def _others():
  rows = _block(minionerec, 'user_id,history_item_id,item_id')
  items = [
    *('{', *(f'  "{i}": {{"title": "T{i}"}},' for i in range(9))),
    *('  "9": {"title": "T9", "categories": "Beauty,Bath"}', '}'),
  ]
  splits = {'train/X.csv': rows[:4], 'valid/X.csv': [rows[0], rows[4]]}
  splits['test/X.csv'] = [rows[0], rows[5]]
  sequences = _block(tiger, '1 1 2 3 4 5')
  maps = json.dumps({'item2id': {f'B{i}': str(i) for i in range(1, 10)}})
  meta = [f"{{'asin': 'B{i}', 'title': 'T{i}'}}" for i in range(1, 10)]
  meta[0] = meta[0].replace('}', ", 'categories': [['Beauty']]}")
  ml100k = {
    'ml-100k.item': (
      b'item_id:token\tmovie_title:token_seq\trelease_year:token'
      b'\tclass:token_seq\n1\tToy Story\t1995\tAnimation Comedy\n'
    ),
    'ml-100k.inter': _text(
      ['user_id:token\titem_id:token\ttimestamp:float', '196\t1\t881250949']
    ),
  }
  return {
    'ml-100k': ('ml-100k', ml100k),
    'ml-100k grouplens': (
      'ml-100k',
      {
        'u.item': _text(_block(movielens, '1|Toy Story (1995)|01-Jan-1995|||')),
        'u.data': _text(_block(movielens, '196\t3\t3\t881250949')),
      },
    ),
    'ml-csv': (
      'ml-csv',
      {
        'movies.csv': _text(_block(movielens_csv, 'movieId,title,genres')),
        'ratings.csv': _text(_block(movielens_csv, 'userId,movieId,rating')),
      },
    ),
    'ml-1m': (
      'ml-1m',
      {
        'movies.dat': _text(
          _block(
            movielens_1m, "1::Toy Story (1995)::Animation|Children's|Comedy"
          )
        ),
        'ratings.dat': _text(_block(movielens_1m, '1::1::5::978300760')),
      },
    ),
    'recbole': (
      'recbole',
      {
        'X.item': _text(
          _block(
            recbole, 'item_id:token\tmovie_title:token_seq\tclass:token_seq'
          )
        ),
        'X.inter': _text(
          _block(
            recbole,
            'user_id:token\titem_id:token\trating:float\ttimestamp:float',
          )
        ),
      },
    ),
    'minionerec': (
      'minionerec',
      {
        'X.item.json': _text(items),
        **{name: _text(lines) for name, lines in splits.items()},
      },
    ),
    'tiger p5': (
      'tiger',
      {
        'sequential_data.txt': _text(sequences),
        'datamaps.json': maps.encode(),
        'meta.json.gz': gzip.compress(_text(meta), mtime=0),
      },
    ),
    'tiger inter': (
      'tiger',
      {
        'X.inter.json': _text(
          _block(
            tiger,
            '{"0": [0, 1, 2], "1": [3, 4], "2": [1, 3, 0], "3": [2, 4], '
            '"4": [4, 0]}',
          )
        ),
        'X.item.json': _text(_block(item_json, '{')),
      },
    ),
  }


CASES = {**_generic(), **_amazon(), **_others()}
FILES = [(case, name) for case in CASES for name in CASES[case][1]]
# What is said of a file as a whole; all else has a line.
_WHOLE = re.compile(
  'the file is empty|no rows|not a Parquet file|no column|'
  'the column .* (stands twice|holds)|a folder'
)


def _write(folder, case, **changes):
  shutil.rmtree(folder, ignore_errors=True)
  for name, content in {**CASES[case][1], **changes}.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _read(folder, case):
  with progress.hidden():
    return sources.READERS[CASES[case][0]].read(folder)


def _outcome(folder, case):
  """Reads; returns what is said of a file that is not read, else ''."""
  try:
    _read(folder, case)
  except ValueError as error:
    message = str(error)
    assert type(error) is ValueError, repr(error)
    files = '|'.join(re.escape(str(folder / n)) for n in CASES[case][1])
    found = re.match(f'({files})(:[0-9]+)?: ', message)
    assert found, message
    assert found[2] or _WHOLE.search(message), message
    return message
  return ''


def test_every_kind_has_its_example():
  assert {kind for kind, _ in CASES.values()} == set(sources.READERS)


@pytest.mark.parametrize('case', CASES)
def test_the_example_reads(tmp_path, case):
  _write(tmp_path / 'raw', case)
  found = _read(tmp_path / 'raw', case)
  assert found.interactions and any(item.categories for item in found.items)
  cfg = sources.SourceConfig('x', CASES[case][0], str(tmp_path / 'raw'), core=0)
  assert sources.read(cfg).counts['interactions'] == len(found.interactions)
  assert len(sources.fingerprint(cfg)) == 64


@pytest.mark.parametrize(('case', 'name'), FILES)
def test_damaged_files_are_named(tmp_path, case, name):
  content = CASES[case][1][name]
  folder = tmp_path / 'raw'

  def outcome(changed):
    _write(folder, case, **{name: changed})
    return _outcome(folder, case)

  assert 'the file is empty' in outcome(b'')
  pointer = (
    b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'
  )
  assert f'{name}:1: a pointer of git-lfs' in outcome(pointer)
  if not name.endswith(('.gz', '.parquet')):
    assert 'a gzip archive; unpack it' in outcome(gzip.compress(content))
  half = outcome(content[: len(content) // 2])
  if name.endswith(('.gz', '.parquet', '.json')):
    assert half
  draw = random.Random(0)
  for _ in range(8):
    place = draw.randrange(len(content))
    outcome(content[:place] + draw.randbytes(1) + content[place + 1 :])
  (folder / name).unlink()
  (folder / name).mkdir()
  assert 'a folder' in _outcome(folder, case)
  if not name.endswith('.parquet'):
    cfg = sources.SourceConfig('x', CASES[case][0], str(folder))
    message = re.escape(f'{folder / name}: a folder, where a file is read')
    with pytest.raises(ValueError, match=message):
      sources.fingerprint(cfg)


def _mutate(content, changes):
  for kind, where, size, new in changes:
    begin = int(where * len(content))
    cut = content[begin : begin + size]
    inside = {'replace': new, 'delete': b'', 'insert': new + cut}
    inside |= {'repeat': cut * 3, 'end': b''}
    end = len(content) if kind == 'end' else begin + size
    content = content[:begin] + inside[kind] + content[end:]
  return content


_PIECES = st.one_of(
  st.binary(max_size=8),
  st.sampled_from(
    [
      *(b'"', b"'", b'""', b',', b'\n', b'\r', b'\t', b'::', b'|', b'{', b'}'),
      *(b'[', b']', b'nan', b'NaN', b'null', b'1e400', b'9' * 400, b'-1'),
      *(
        b'\\ud800',
        b'\x00',
        b'\xff',
        b'\xef\xbb\xbf',
        b'1.5',
        b'true',
        b'[' * 99,
      ),
      *(b'["a"]', b"['a' 'b']", b'{"a": 1}', b'asin', b'item_id', b':token'),
    ]
  ),
)
_CHANGES = st.lists(
  st.tuples(
    st.sampled_from(['replace', 'delete', 'insert', 'repeat', 'end']),
    st.floats(0, 1),
    st.integers(0, 40),
    _PIECES,
  ),
  min_size=1,
  max_size=4,
)


def _fuzz(folder, file, changes, inside):
  case, name = file
  content = CASES[case][1][name]
  if name.endswith('.gz') and inside:
    content = gzip.compress(_mutate(gzip.decompress(content), changes), mtime=0)
  else:
    content = _mutate(content, changes)
  _write(folder, case, **{name: content})
  _outcome(folder, case)


_ANY = hypothesis.given(
  file=st.sampled_from(FILES), changes=_CHANGES, inside=st.booleans()
)
_SETTINGS = {
  'deadline': None,
  'suppress_health_check': list(hypothesis.HealthCheck),
}


@hypothesis.settings(max_examples=300, **_SETTINGS)
@_ANY
def test_any_bytes_are_read_or_named(tmp_path, file, changes, inside):
  _fuzz(tmp_path / 'raw', file, changes, inside)


@pytest.mark.slow
@hypothesis.settings(max_examples=10_000, **_SETTINGS)
@_ANY
def test_ten_thousand_files_are_read_or_named(tmp_path, file, changes, inside):
  _fuzz(tmp_path / 'raw', file, changes, inside)


@pytest.mark.slow
@hypothesis.settings(max_examples=2_000, **_SETTINGS)
@hypothesis.given(file=st.sampled_from(FILES), content=st.binary(max_size=300))
def test_bytes_of_nothing_are_named(tmp_path, file, content):
  case, name = file
  _write(tmp_path / 'raw', case, **{name: content})
  _outcome(tmp_path / 'raw', case)
