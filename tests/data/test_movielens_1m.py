import pytest

from gr2_jax.data import movielens_1m, raw

MOVIES = (
  "1::Toy Story (1995)::Animation|Children's\n2::Les Mis\u00e9rables::Drama\n"
)
RATINGS = '1::2::5::978300760\n6040::1::4::956704746\n'


def _write(folder, movies=MOVIES, ratings=RATINGS, encoding='latin-1'):
  (folder / 'movies.dat').write_bytes(movies.encode(encoding))
  (folder / 'ratings.dat').write_text(ratings)


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-8'])
def test_latin_1_and_utf_8(tmp_path, encoding):
  _write(tmp_path, encoding=encoding)
  read = movielens_1m.read(tmp_path)
  assert [item.title for item in read.items] == [
    'Toy Story (1995)',
    'Les Mis\u00e9rables',
  ]
  assert read.items[0].categories == ('Animation', "Children's")
  assert read.interactions == [
    raw.Interaction('1', '2', 978_300_760),
    raw.Interaction('6040', '1', 956_704_746),
  ]


def test_the_files_of_10m(tmp_path):
  movies = MOVIES + '8606::Pull My Daisy (1958)::(no genres listed)\n'
  _write(tmp_path, movies, '1::8606::4.5::838985046\n', encoding='utf-8')
  read = movielens_1m.read(tmp_path)
  assert [item.categories for item in read.items[1:]] == [('Drama',), ()]
  assert read.interactions == [raw.Interaction('1', '8606', 838_985_046)]


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    (
      {'movies': MOVIES + '3::x\n'},
      'movies.dat:3: 2 fields, not 3: .*MovieID::',
    ),
    ({'ratings': RATINGS + '1,1,5,9\n'}, 'ratings.dat:3: 1 fields, not 4'),
    (
      {'ratings': RATINGS + '1::9::5::9\n'},
      "ratings.dat:3: the item '9' has no",
    ),
    (
      {'movies': MOVIES + '1::Other (1995)::Drama\n'},
      "movies.dat:3: the item '1' stands at .*:1 already",
    ),
  ],
)
def test_bad_input(tmp_path, files, message):
  _write(tmp_path, **files)
  with pytest.raises(ValueError, match=message):
    movielens_1m.read(tmp_path)
