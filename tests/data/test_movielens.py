import gzip

import pytest

from gr2_jax.data import clean, movielens, raw
from gr2_jax.data import dataset as dataset_lib

ITEMS = """\
item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
1\tToy Story\t1995\tAnimation Children's Comedy
2\t"Quoted" film\t1990\tunknown
3\tLand Before Time III (1995)\tV\tAnimation
"""
ROWS = """\
user_id:token\titem_id:token\trating:float\ttimestamp:float
196\t3\t3\t881250949
22\t1\t1\t878887116
"""

_NONE = '|0' * 18
PUBLISHED = f"""\
1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|1|1{'|0' * 13}
543|Mis\u00e9rables, Les (1995)|01-Jan-1995|||0|0|0|0|0|0|0|0|1{'|0' * 10}
267|unknown||||1{_NONE}
4|Nobody (1994)|01-Jan-1994|||0{_NONE}
5|Western (1997)|24-Apr-1998|||0{_NONE[2:]}|1
"""
RATINGS = """\
196\t543\t3\t881250949
186\t267\t3\t891717742
22\t1\t1\t878887116
244\t5\t2\t880606923
166\t4\t1\t886397596
"""


def _write(folder, items=ITEMS, rows=ROWS):
  (folder / 'ml-100k.item').write_text(items)
  (folder / 'ml-100k.inter').write_text(rows)


def test_titles_carry_the_year_and_genres_are_categories(tmp_path):
  _write(tmp_path)
  read = movielens.read(tmp_path)
  assert read.items == (
    dataset_lib.Item(
      '1', 'Toy Story (1995)', ('Animation', "Children's", 'Comedy')
    ),
    dataset_lib.Item('2', '"Quoted" film (1990)', ()),
    dataset_lib.Item('3', 'Land Before Time III (1995)', ('Animation',)),
  )
  assert read.interactions == [
    raw.Interaction('196', '3', 881250949),
    raw.Interaction('22', '1', 878887116),
  ]


def test_bad_input(tmp_path):
  _write(tmp_path, rows=ROWS + '1\t9\t3\t5\n')
  with pytest.raises(ValueError, match=r"ml-100k.inter:4: the item '9' has no"):
    movielens.read(tmp_path)
  _write(tmp_path, items=ITEMS.replace('class:', 'genre:'))
  with pytest.raises(ValueError, match=r"ml-100k.item:1: no column \['class:"):
    movielens.read(tmp_path)


def _publish(folder, items=PUBLISHED, rows=RATINGS):
  (folder / 'u.item').write_bytes(items.encode('latin-1'))
  (folder / 'u.data').write_text(rows)


def test_the_files_of_grouplens(tmp_path):
  _publish(tmp_path)
  read = movielens.read(tmp_path)
  assert read.items == (
    dataset_lib.Item(
      '1', 'Toy Story (1995)', ('Animation', "Children's", 'Comedy')
    ),
    dataset_lib.Item('543', 'Mis\u00e9rables, Les (1995)', ('Drama',)),
    dataset_lib.Item('267', 'unknown', ()),
    dataset_lib.Item('4', 'Nobody (1994)', ()),
    dataset_lib.Item('5', 'Western (1997)', ('Western',)),
  )
  assert read.interactions[0] == raw.Interaction('196', '543', 881250949)
  assert [row.item_id for row in read.interactions[1:]] == [
    '267',
    '1',
    '5',
    '4',
  ]


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({'items': PUBLISHED[:-3]}, r'u.item:5: 23 fields, not 24: .*movie id\|'),
    ({'items': PUBLISHED[:-2] + '2'}, 'u.item:5: the genres are .* 0 or a 1'),
    ({'rows': RATINGS + '1,1,5,9\n'}, 'u.data:6: 1 fields, not 4'),
    ({'rows': RATINGS + '1\t9\t5\t9\n'}, "u.data:6: the item '9' has no"),
  ],
)
def test_bad_files_of_grouplens(tmp_path, files, message):
  _publish(tmp_path, **files)
  with pytest.raises(ValueError, match=message):
    movielens.read(tmp_path)


@pytest.mark.parametrize(
  'names', [('u.item', 'u.data'), ('ml-100k.item', 'ml-100k.inter')]
)
def test_archives_and_missing_files(tmp_path, names):
  _write(tmp_path) if names[0] == 'ml-100k.item' else _publish(tmp_path)
  plain = movielens.read(tmp_path)
  for name in names:
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'0 files match {name}; put'):
      movielens.read(tmp_path)
    (tmp_path / f'{name}.gz').write_bytes(gzip.compress(content))
    assert movielens.read(tmp_path) == plain


@pytest.mark.slow
def test_the_real_files():
  from gr2_jax import assets

  read = movielens.read(assets.fetch('ml-100k'))
  dataset = clean.clean('ml-100k', read, 0)
  assert (dataset.num_users, dataset.num_items) == (943, 1682)
  assert len(dataset.flat) == 100_000
