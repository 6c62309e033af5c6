import csv
import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax.data import delimited, raw_files


def _read(folder, text, **dialect):
  (folder / 'x.csv').write_bytes(text.encode())
  return list(delimited.rows(folder / 'x.csv', ('a',), **dialect))


def test_rows_are_where_they_begin(tmp_path):
  text = 'a,b\n1,"x\ny"\n\n2,"say ""z"""\n'
  assert [
    (where.rpartition(':')[2], row) for where, row in _read(tmp_path, text)
  ] == [('2', {'a': '1', 'b': 'x\ny'}), ('5', {'a': '2', 'b': 'say "z"'})]


ROWS = ''.join(f'{i},Item {i}\n' for i in range(4, 1000))


@pytest.mark.parametrize(
  ('rows', 'line'),
  [
    # Open to the end of the file.
    ('1,Rose\n2,"Mint balm\n3,Nail\n' + ROWS, 3),
    # A field of several lines is closed before the open one.
    ('1,Rose\n"2\n2",x\n"3\n3","Nail\n' + ROWS, 6),
    # Closed by the next quote, which is no end of a field.
    ('1,Rose\n2,"Mint\n3,"Nail"\n' + ROWS, 3),
    ('1,Rose\n2,"Mint "green" balm"\n' + ROWS, 3),
    ('1,"say ""x"", or\n' + ROWS, 2),
  ],
)
def test_a_quote_that_is_not_closed_is_named_where_it_opens(
  tmp_path, rows, line
):
  with pytest.raises(
    ValueError, match=f'x.csv:{line}: .*quote.* opens .*close'
  ):
    _read(tmp_path, f'a,b\n{rows}')


def test_a_quote_that_is_not_closed_in_a_large_file(tmp_path, monkeypatch):
  """Found out before the rest of the file is in the memory."""
  monkeypatch.setattr(raw_files, 'LONGEST_LINE', 1000)
  with pytest.raises(ValueError, match='x.csv:2: .*opens here.*larger than'):
    _read(tmp_path, f'a,b\n1,"Rose\n{ROWS}')


def test_quotes_are_plain_where_they_do_not_quote(tmp_path):
  row = dict(zip('ab', ('1', '"x'), strict=True))
  found = _read(tmp_path, 'a\tb\n1\t"x\n', **delimited.TABS)
  assert [row for _, row in found] == [row]
  assert _read(tmp_path, 'a,b\n1,5" disk\n')[0][1]['b'] == '5" disk'


def test_a_column_name_twice_is_an_error(tmp_path):
  with pytest.raises(ValueError, match="x.csv:1: the column 'b' stands twice"):
    _read(tmp_path, 'a,b,b\n1,2,3\n')
  # Columns without a name, as of a row's last comma, are no matter.
  assert len(_read(tmp_path, 'a,b,,\n1,2,,\n')) == 1


@pytest.mark.parametrize('first', ['', ' ', ','])
def test_an_empty_first_line_is_named(tmp_path, first):
  with pytest.raises(ValueError, match='x.csv:1: .*no names .*remove the line'):
    _read(tmp_path, f'{first}\na,b\n1,2\n')


@hypothesis.settings(
  deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@hypothesis.given(
  st.lists(st.text('",\na', max_size=5), min_size=1, max_size=5)
)
def test_what_is_written_is_read(tmp_path, cells):
  with (tmp_path / 'x.csv').open('w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerows([['a', 'b'], *itertools.product(cells, ['x'])])
  found = delimited.rows(tmp_path / 'x.csv', ('a', 'b'))
  assert [row['a'] for _, row in found] == cells
