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


@pytest.mark.slow
def test_the_real_files():
  from gr2_jax import assets

  read = movielens.read(assets.fetch('ml-100k'))
  dataset = clean.clean('ml-100k', read, 0)
  assert (dataset.num_users, dataset.num_items) == (943, 1682)
  assert len(dataset.flat) == 100_000
