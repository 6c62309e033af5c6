import pytest

from gr2_jax.data import movielens_csv, raw

MOVIES = """\
movieId,title,genres
11,"American President, The (1995)",Comedy|Drama|Romance
73,"Mis\u00e9rables, Les (1995)",Drama|War
7789,"11'09""01 - September 11 (2002)",Drama
26,Othello (1995),(no genres listed)
5,Father of the Bride Part II (1995),Comedy
"""
RATINGS = """\
userId,movieId,rating,timestamp
1,11,2.5,1260759144
1,73,3.0,1260759179
2,11,4.0,835355493
2,7789,5.0,835355681
10,26,0.5,942766420
"""


def _write(folder, movies=MOVIES, ratings=RATINGS):
  (folder / 'movies.csv').write_bytes(movies.encode())
  (folder / 'ratings.csv').write_text(ratings)


# The archives have had both line breaks.
@pytest.mark.parametrize('line_break', ['\n', '\r\n'])
def test_movies_and_ratings(tmp_path, line_break):
  _write(tmp_path, MOVIES.replace('\n', line_break))
  read = movielens_csv.read(tmp_path)
  assert [(item.title, item.categories) for item in read.items] == [
    ('American President, The (1995)', ('Comedy', 'Drama', 'Romance')),
    ('Mis\u00e9rables, Les (1995)', ('Drama', 'War')),
    ('11\'09"01 - September 11 (2002)', ('Drama',)),
    ('Othello (1995)', ()),
    ('Father of the Bride Part II (1995)', ('Comedy',)),
  ]
  assert read.interactions[1:] == [
    raw.Interaction('1', '73', 1_260_759_179),
    raw.Interaction('2', '11', 835_355_493),
    raw.Interaction('2', '7789', 835_355_681),
    raw.Interaction('10', '26', 942_766_420),
  ]


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({'movies': MOVIES + '6,x\n'}, 'movies.csv:7: 2 fields where .* 3'),
    (
      {'movies': MOVIES.replace('genres', 'tags')},
      r"movies.csv:1: no column \['genres'\]",
    ),
    (
      {'ratings': RATINGS + '1,9,5.0,9\n'},
      "ratings.csv:7: the item '9' has no record in movies.csv",
    ),
    (
      {'ratings': RATINGS + '1,,5.0,9\n'},
      "ratings.csv:7: movieId is ''",
    ),
  ],
)
def test_bad_input(tmp_path, files, message):
  _write(tmp_path, **files)
  with pytest.raises(ValueError, match=message):
    movielens_csv.read(tmp_path)
