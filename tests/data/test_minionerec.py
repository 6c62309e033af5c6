import json

import pytest

from gr2_jax.data import minionerec

HEAD = (
  'user_id,history_item_title,item_title,history_item_id,item_id,'
  'history_item_sid,item_sid'
)


def _row(user, history, item):
  titles = [f'T, "{i}"' for i in history]
  quoted = str(titles).replace('"', '""')
  return f'{user},"{quoted}",T,"{history}",{item},"[\'<a_1>\']",<a_2>'


# Sequences: A0 5 7 2 1 5, A1 2 7 5 1.
ROWS = {
  'train': [
    ('A0', [5], 7),
    ('A1', [2], 7),
    ('A0', [5, 7], 2),
    ('A1', [2, 7], 5),
  ],
  'valid': [('A0', [7, 2], 1)],
  'test': [('A1', [7, 5], 1), ('A0', [2, 1], 5)],
}


def _write(folder, rows=ROWS, info=False, atomic=False):
  for name, found in rows.items():
    lines = [HEAD, *(_row(*row) for row in found)]
    path = folder / name / 'Office_5_2016-10-2018-11.csv'
    if atomic:
      head = 'user_id:token\titem_id_list:token_seq\titem_id:token'
      lines = [
        head,
        *(f'{u}\t{" ".join(map(str, h))}\t{i}' for u, h, i in found),
      ]
      path = folder / f'Office.{name}.inter'
    path.parent.mkdir(exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))
  (folder / 'index').mkdir(exist_ok=True)
  if info:
    lines = [f'<a_{i}><b_1>\tT&#32;{i}\t{i}\n' for i in (1, 2, 5, 7)]
    (folder / 'info').mkdir(exist_ok=True)
    (folder / 'info' / 'Office.txt').write_text(''.join(lines))
    return
  items = {
    str(i): {'title': f'T {i}', 'categories': 'a,b'} for i in (1, 2, 5, 7)
  }
  (folder / 'index' / 'Office.item.json').write_text(
    json.dumps(items, indent=2)
  )


def _sequences(read):
  found = {}
  for row in read.interactions:
    assert row.timestamp == len(found.setdefault(row.user_id, []))
    found[row.user_id].append(row.item_id)
  return found


@pytest.mark.parametrize('atomic', [False, True])
@pytest.mark.parametrize('info', [False, True])
def test_sequences_are_put_together(tmp_path, atomic, info):
  _write(tmp_path, info=info, atomic=atomic)
  read = minionerec.read(tmp_path)
  assert _sequences(read) == {
    'A0': ['5', '7', '2', '1', '5'],
    'A1': ['2', '7', '5', '1'],
  }
  assert [item.title for item in read.items] == ['T 1', 'T 2', 'T 5', 'T 7']
  assert read.items[0].categories == (() if info else ('a', 'b'))


def test_what_rows_skip_is_in_histories(tmp_path):
  """As where only the longest training rows are kept."""
  train = [('A0', [5, 7], 2), ('A1', [2, 7], 5)]
  test = [('A1', [7, 5], 1), ('A0', [7, 2, 1], 5)]
  _write(tmp_path, {'train': train, 'valid': [('A2', [], 1)], 'test': test})
  assert _sequences(minionerec.read(tmp_path)) == {
    'A0': ['5', '7', '2', '1', '5'],
    'A1': ['2', '7', '5', '1'],
    'A2': ['1'],
  }


def test_bad_input(tmp_path):
  test = [('A0', [1, 2], 5), ('A1', [1], 2)]
  _write(tmp_path, {**ROWS, 'test': test})
  with pytest.raises(
    ValueError, match=r"test/.*csv:3: the history of user 'A1'"
  ):
    minionerec.read(tmp_path)
  _write(tmp_path, {**ROWS, 'test': [('A0', [2, 1], 9)]})
  with pytest.raises(
    ValueError, match=r"csv:2: the item '9' has no record in Of"
  ):
    minionerec.read(tmp_path)
  (tmp_path / 'test' / 'Office_5_2016-10-2018-11.csv').unlink()
  with pytest.raises(FileNotFoundError, match='0 files match test/'):
    minionerec.read(tmp_path)


def test_one_of_several_data_sets(tmp_path):
  _write(tmp_path)
  expected = minionerec.read(tmp_path)
  for path in [p for p in tmp_path.rglob('Office*') if p.is_file()]:
    other = path.with_name(path.name.replace('Office', 'Industrial'))
    other.write_text(path.read_text().replace('A0', 'B0'))
  with pytest.raises(FileNotFoundError, match='2 files match index/'):
    minionerec.read(tmp_path)
  assert minionerec.read(tmp_path / 'Office') == expected
  users = {
    row.user_id for row in minionerec.read(tmp_path / 'Ind').interactions
  }
  assert users == {'A1', 'B0'}
  with pytest.raises(FileNotFoundError, match='0 files match info/Toys'):
    minionerec.read(tmp_path / 'Toys')
