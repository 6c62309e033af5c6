"""Columns of evidence: by hand, what may count, and their invariances."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.rank import evidence, sasrec_lists, sasrec_model

ITEMS = [
  dataset_lib.Item('a', 'Star Wars of 1977', ('Film', 'Space'), 'Fox'),
  dataset_lib.Item('b', 'A STAR is born', ('Film', 'Drama'), 'WB'),
  dataset_lib.Item('c', 'Alien', ('Film', 'Space'), 'Fox'),
  dataset_lib.Item('d', 'Heat', ('Film',)),
]
# Behind the bar stands what is held out.
SEQUENCES = {'u': [0, 1, 2, 3], 'v': [0, 1, 2], 'w': [3, 0]}
TRAIN_END = [3, 2, 1]
PLACE = evidence.NAMES.index


def make(sequences=SEQUENCES, train_end=TRAIN_END, window=2, **given):
  dataset = dataset_lib.from_sequences('four', ITEMS, sequences)
  splits = splits_lib.Splits(np.array(train_end), {})
  cfg = evidence.EvidenceConfig(window=window)
  return evidence.Evidence(dataset, splits, cfg, **given)


def standard(*values):
  """Mean 0 and deviation 1."""
  values = np.array(values, np.float64)
  return (values - values.mean()) / values.std()


def centred(*values):
  """Mean 0, in its own unit."""
  values = np.array(values, np.float64)
  return values - values.mean()


def test_columns_by_hand():
  made = make()
  assert made.names == evidence.NAMES
  found = made.columns([np.array([2, 0])], np.array([[1, 3, 2]]), [[5, 2, 2]])
  assert found.shape == (1, 3, 5) and found.dtype == np.float32
  # Item 2 is one step older and weighs 0.8. Items 0 and 2 share Space and Fox,
  # 0 and 1 the word Star, which weighs half: (1, 1, 0.5) / 1.5 is item 0's row,
  # (1, 1) / sqrt 2 item 2's.
  theme = 0.8 / np.sqrt(2) + 1 / 1.5
  content = (0.5 / 1.5, 0, 2 * theme / np.sqrt(2))
  # 0, 1 was seen twice and 0, 2 once at distance two; 2.5 came after 0, and 2
  # before 1, 1.5 before 2.
  follow = (2 / np.sqrt(2.5 * 2), 0, 0.5 / np.sqrt(2.5 * 1.5))
  expected = {
    'score': standard(5, 2, 2),
    'log_rank': centred(0, -np.log(2), -np.log(3)),
    'popularity': centred(np.log(3), np.log(2), np.log(2)),
    'content': centred(*np.sqrt(content)),
    'follow': centred(*np.sqrt(follow)),
  }
  for place, name in enumerate(made.names):
    # Products and columns are float32.
    np.testing.assert_allclose(
      found[0, :, place], expected[name], atol=1e-6, err_msg=name
    )


def test_all_lists_share_the_unit_of_a_column():
  """That of the median list; a list whose items are alike stays so."""
  columns = np.zeros((4, 3, 3), np.float32)
  columns[:3, :2, 0] = [[1, -1], [3, -3], [500, -500]]
  columns[0, :2, 1] = [0.25, -0.25]
  real = np.array([[1, 1, 0]] * 3 + [[1, 1, 1]], bool)
  # The fourth list of column 0 and three of column 1 have no deviation.
  units = evidence.scales(columns, real)
  assert units == (3, 0.25, 1)
  found = evidence.scaled(columns, units)
  expected = np.float32([1 / 3, 1, 10])  # The last is far off, and cut.
  np.testing.assert_allclose(found[:3, 0, 0], expected)
  np.testing.assert_array_equal(found[:3, 1, 0], -found[:3, 0, 0])
  assert found[0, :2, 1].tolist() == [1, -1] and not found[1:, :, 1].any()
  # Lists that come later are brought to the same units.
  lists = [np.array([2, 0])], np.array([[1, 3, 2]]), np.array([[5, 2, 2]])
  plain = make().columns(*lists)
  other = make(scales=(1, 2, 4, 0.5, 1e-3)).columns(*lists)
  np.testing.assert_array_equal(other[..., 1:3], plain[..., 1:3] / [2, 4])
  np.testing.assert_array_equal(other[..., 3], plain[..., 3] * 2)
  assert np.abs(other).max() == 10


def test_units_are_one_for_each_column():
  with pytest.raises(ValueError, match='2 units for the 5 columns'):
    make(scales=(1, 2))


def test_only_the_last_items_of_a_history_count():
  dataset = dataset_lib.from_sequences('four', ITEMS, SEQUENCES)
  splits = splits_lib.Splits(np.array(TRAIN_END), {})
  cfg = evidence.EvidenceConfig(history_items=1)
  made = evidence.Evidence(dataset, splits, cfg)
  lists = np.array([[1, 3, 2]] * 2), np.zeros((2, 3))
  one, other = made.columns([np.array([2, 0]), np.array([1, 1, 0])], *lists)
  np.testing.assert_array_equal(one, other)
  assert one[:, PLACE('follow')].any()


@pytest.mark.parametrize(
  'changed',
  [{'w': [1, 2, 2, 1]}, {'w': []}, {'u': [0, 1, 2, 0]}, {'v': [0, 1, 3, 3]}],
)
def test_nothing_behind_train_end_counts(changed):
  """A user whose `train_end` is 0 counts for nothing, as in a fold."""
  ends = [3, 2, 0]
  histories = [np.array([3]), np.array([0, 1]), np.array([2, 1, 3, 0])]
  lists = np.array([[0, 1, 2, 3]] * 3), np.zeros((3, 4))
  one = make(train_end=ends).columns(histories, *lists)
  other = make({**SEQUENCES, **changed}, ends).columns(histories, *lists)
  np.testing.assert_array_equal(one, other)
  # Where the user counts, the numbers are others.
  seen = make(train_end=TRAIN_END).columns(histories, *lists)
  assert (seen[..., PLACE('popularity')] != one[..., PLACE('popularity')]).any()


def test_where_nobody_counts_only_texts_and_the_order_speak():
  found = make(train_end=[0, 0, 0]).columns(
    [np.array([0])], np.array([[1, 2, 3]]), np.zeros((1, 3))
  )
  silent = [PLACE('score'), PLACE('popularity'), PLACE('follow')]
  np.testing.assert_array_equal(found[..., silent], 0)
  assert found[0, :, PLACE('content')].argmax() == 1


def test_padding_is_zero_and_changes_nothing():
  made = make(extra_names=('ctr',))
  history = np.array([2, 0])
  scores = np.array([[3.0, 1.0, -np.inf, np.nan]])
  extra = np.array([[[0.5], [0.25], [np.nan], [np.inf]]])
  padded = made.columns([history], np.array([[1, 2, -1, -1]]), scores, extra)
  alone = made.columns(
    [history], np.array([[1, 2]]), scores[:, :2], extra[:, :2]
  )
  np.testing.assert_array_equal(padded[:, :2], alone)
  np.testing.assert_array_equal(padded[:, 2:], 0)
  # Of two different scores one is a deviation above, the other below.
  np.testing.assert_allclose(alone[0, :, PLACE('score')], [1, -1])
  np.testing.assert_allclose(alone[0, :, -1], [0.125, -0.125])


def test_equal_numbers_and_empty_histories_say_nothing():
  found = make().columns(
    [np.array([], np.int32)], np.array([[2, 0, 1]]), np.full((1, 3), 0.1)
  )
  for name in ('score', 'content', 'follow'):
    np.testing.assert_array_equal(found[..., PLACE(name)], 0)
  assert found[..., PLACE('log_rank')].any()
  # One candidate has nobody to be compared with.
  alone = make().columns([np.array([0])], np.array([[1]]), np.ones((1, 1)))
  np.testing.assert_array_equal(alone, 0)


def test_equal_but_for_rounding_is_equal():
  """Sums of the same numbers in another order are no evidence."""
  scores = np.array([[0.1 + 0.2, 0.3, 0.3]])
  assert scores[0, 0] != scores[0, 1]
  candidates = np.array([[0, 1, 2]])
  found = make().columns([np.array([3])], candidates, scores)
  np.testing.assert_array_equal(found[..., PLACE('score')], 0)
  # Small numbers are not: only their differences count.
  found = make().columns([np.array([3])], candidates, [[1e-12, 3e-12, 2e-12]])
  np.testing.assert_allclose(
    found[0, :, PLACE('score')], standard(1, 3, 2), atol=1e-6
  )


def test_no_lists():
  found = make().columns([], np.zeros((0, 3), np.int32), np.zeros((0, 3)))
  assert found.shape == (0, 3, 5)


@pytest.fixture(scope='module')
def network(mesh1):
  shape = sasrec_model.NetworkConfig(
    num_items=4, width=8, layers=1, heads=1, mlp_dim=8, max_length=4
  )
  tokens = jnp.zeros((1, 2), jnp.int32)
  params = sasrec_model.SASRec(shape).init(
    jax.random.key(1), tokens, tokens, tokens
  )['params']
  return sasrec_lists.Model(shape, nn.unbox(params), mesh1)


def test_the_column_of_sasrec_is_its_logit(network):
  made = make(sasrec=network, extra_names=('ctr', 'age'))
  assert made.names == (*evidence.NAMES, 'sasrec', 'ctr', 'age')
  histories = [np.array([2, 0]), np.array([], np.int32), np.array([1, 2, 3])]
  candidates = np.array([[1, 3, 2], [0, 1, 2], [0, 1, -1]])
  extra = np.arange(18.0).reshape(3, 3, 2) ** 2
  found = made.columns(histories, candidates, np.zeros((3, 3)), extra)
  logits = sasrec_lists.scores(
    network, [histories[0], histories[2]], np.array([[1, 3, 2], [0, 1, 1]])
  )
  column = found[..., 5]
  np.testing.assert_allclose(column[0], centred(*logits[0]), atol=1e-5)
  np.testing.assert_array_equal(column[1], 0)
  np.testing.assert_allclose(column[2, :2], centred(*logits[1, :2]), atol=1e-5)
  np.testing.assert_allclose(found[0, :, 7], centred(1, 9, 25), atol=1e-6)
  # Without any history there is nothing to ask it.
  none = made.columns(histories[1:2], candidates[1:2], [[0, 0, 0]], extra[:1])
  np.testing.assert_array_equal(none[..., 5], 0)


def test_new_items_have_features_and_nothing_else(network):
  made = make(sasrec=network)
  new = dataset_lib.Item('e', 'star trek', ('Space',))
  grown = made.grown([new])
  histories = [np.array([2, 0, 4]), np.array([4]), np.array([], np.int32)]
  candidates = np.array([[1, 4, 2], [4, 0, 3], [4, 3, -1]])
  found = grown.columns(histories, candidates, np.zeros((3, 3)))
  column = lambda name: found[..., grown.names.index(name)]
  # How popular it will be is unknown: it gets the mean of the others.
  half = np.log(3 / 2) / 2
  np.testing.assert_allclose(
    column('popularity')[0], [half, 0, -half], atol=1e-6
  )
  # Its row is (Space, Star) = (2, 1) / sqrt 5; it is one step younger than 0.
  own = np.array([2, 0, 1]) / np.sqrt(5)
  rows = {0: np.array([1, 1, 0.5]) / 1.5, 1: np.array([0, 0, 1.0])}
  rows |= {2: np.array([1, 1, 0]) / np.sqrt(2), 4: own}
  profile = 0.64 * rows[2] + 0.8 * rows[0] + rows[4]
  expected = centred(*(np.sqrt(profile @ rows[item]) for item in (1, 4, 2)))
  np.testing.assert_allclose(column('content')[0], expected, atol=1e-5)
  # What follows 0 and 2, as before; what it follows itself is unknown.
  # Item 0, after which they were seen, is one step older than the new one.
  after = np.array([2 / np.sqrt(2.5 * 2), 0.5 / np.sqrt(2.5 * 1.5)])
  first, last = np.sqrt(0.8 * after)
  half = (first - last) / 2
  np.testing.assert_allclose(column('follow')[0], [half, 0, -half], atol=1e-6)
  np.testing.assert_array_equal(column('follow')[1], 0)
  # SASRec uses the items that it knows.
  logits = sasrec_lists.scores(network, [np.array([2, 0])], np.array([[1, 2]]))
  low, high = centred(*logits[0])
  np.testing.assert_allclose(column('sasrec')[0], [low, 0, high], atol=1e-5)
  np.testing.assert_array_equal(column('sasrec')[1:], 0)
  # Lists of old items are what they were, to the bit.
  lists = [np.array([2, 0])], np.array([[1, 3, 2]]), np.ones((1, 3))
  np.testing.assert_array_equal(grown.columns(*lists), made.columns(*lists))


LISTS = st.lists(
  st.tuples(
    st.lists(st.integers(0, 3), max_size=5),
    st.permutations(range(4)),
    st.lists(
      st.floats(-100, 100, width=16), min_size=4, max_size=4, unique=True
    ),
  ),
  min_size=1,
  max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(lists=LISTS, order=st.permutations(range(4)))
def test_columns_move_with_their_candidates(lists, order):
  histories, candidates, scores = zip(*lists, strict=True)
  histories = [np.array(h, np.int32) for h in histories]
  candidates, scores = np.array(candidates), np.array(scores)
  made = make(extra_names=('own',))
  extra = (scores**2)[..., None]
  found = made.columns(histories, candidates, scores, extra)
  order = list(order)
  moved = made.columns(
    histories, candidates[:, order], scores[:, order], extra[:, order]
  )
  stays = PLACE('log_rank')
  np.testing.assert_array_equal(moved[..., stays], found[..., stays])
  others = [i for i in range(len(made.names)) if i != stays]
  # Sums in another order.
  np.testing.assert_allclose(
    moved[..., others], found[:, order][..., others], atol=1e-5
  )


@settings(max_examples=60, deadline=None)
@given(lists=LISTS, scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_columns_keep_the_order_and_forget_the_unit(lists, scale, shift):
  histories, candidates, scores = zip(*lists, strict=True)
  histories = [np.array(h, np.int32) for h in histories]
  candidates, scores = np.array(candidates), np.array(scores)
  made = make()
  found = made.columns(histories, candidates, scores)
  column = found[..., PLACE('score')]
  by = np.argsort(scores, axis=1)
  assert (np.diff(np.take_along_axis(column, by, axis=1), axis=1) >= 0).all()
  real = np.ptp(scores, axis=1) > 1e-2
  np.testing.assert_allclose(column[real].mean(axis=1), 0, atol=1e-5)
  np.testing.assert_allclose(column[real].std(axis=1), 1, atol=1e-4)
  other = made.columns(histories, candidates, scale * scores + shift)
  # The shift costs digits of small scores.
  np.testing.assert_allclose(
    other[real][..., PLACE('score')], column[real], atol=1e-3
  )
  assert np.isfinite(found).all()


def test_lists_do_not_depend_on_what_is_beside_them(monkeypatch):
  rng = np.random.default_rng(0)
  histories = [rng.integers(0, 4, n) for n in (3, 0, 5, 1, 2)]
  candidates = np.stack([rng.permutation(4)[:3] for _ in histories])
  scores = rng.random((5, 3))
  whole = make().columns(histories, candidates, scores)
  monkeypatch.setattr(evidence, '_ENTRIES', 8)
  np.testing.assert_array_equal(
    make().columns(histories, candidates, scores), whole
  )
  for row in range(5):
    part = slice(row, row + 1)
    alone = make().columns(histories[part], candidates[part], scores[part])
    np.testing.assert_array_equal(alone, whole[part])


HISTORY = [np.array([0])]


@pytest.mark.parametrize(
  'given, message',
  [
    (([], [[0, 1]], [[0, 0]]), '0 histories, candidates .1, 2., .*do not fit'),
    ((HISTORY, [[0, 1]], [[0, 0, 0]]), r'scores \(1, 3\)'),
    ((HISTORY, [[0, 1]], [[0, 0]], [[[1, 2], [1, 2]]]), r'own .*\(1, 2, 2\)'),
    ((HISTORY, [[0, -1, 1]], [[0, 0, 0]]), 'put -1 at the end'),
    ((HISTORY, [[0, 4]], [[0, 0]]), "4 is none of the catalogue's 4 items"),
    ((HISTORY, [[0, 1]], [[0, np.nan]]), "'score' is nan for place 1 of list"),
    (
      (HISTORY, [[0, 1]], [[0, 0]], [[[1], [np.inf]]]),
      "'ctr' is inf for place 1 of list 0",
    ),
  ],
)
def test_what_does_not_fit_is_refused(given, message):
  made = make(extra_names=('ctr',))
  histories, candidates, scores, *extra = given
  extra = np.array(extra[0]) if extra else np.zeros((*np.shape(candidates), 1))
  with pytest.raises(ValueError, match=message):
    made.columns(histories, np.array(candidates), np.array(scores), extra)


@pytest.mark.parametrize('names', [('score',), ('sasrec',), ('x', 'x')])
def test_names_that_stand_twice_are_refused(names):
  with pytest.raises(ValueError, match=rf"\['{names[-1]}'\] stand twice"):
    make(extra_names=names)


def test_own_columns_must_be_given():
  with pytest.raises(ValueError, match=r"columns \('ctr',\) as \[N, K, 1\]"):
    make(extra_names=('ctr',)).columns(
      HISTORY, np.array([[0, 1]]), np.zeros((1, 2))
    )


@pytest.mark.parametrize(
  'field, value', [('recency', 0.0), ('window', 0), ('history_items', 0)]
)
def test_impossible_settings_are_refused(field, value):
  with pytest.raises(ValueError, match=field):
    evidence.EvidenceConfig(**{field: value})
