"""Columns of evidence: numbers by which the candidates of a list are ranked.

evidence = Evidence(dataset, splits, EvidenceConfig())
columns = evidence.columns(histories, candidates, scores)  # [N, K, F]
evidence.scales = scales(columns, candidates >= 0)  # of training lists

Which columns there are is our choice. Rankers weigh them, `rank.linear` alone,
the rules teacher by fixed weights. Nothing of a user behind `train_end` counts.

Each column has mean 0 over its list, and a unit that is the same for all lists:
brought to deviation 1 list by list, it would not tell ten candidates that are
about as popular as each other from ten that are not. The score alone has
deviation 1 in each list, since another retriever has another unit.
"""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.rank import item_features, popularity, sasrec_lists

NAMES = ('score', 'log_rank', 'popularity', 'content', 'follow')
SASREC = 'sasrec'

# Entries of the histories' profiles that are in memory at a time.
_ENTRIES = 2**22
# A number further from the mean of its list, in units of its column, is cut.
_LIMIT = 10.0


@dataclasses.dataclass(frozen=True)
class EvidenceConfig:
  """How a history counts in the columns 'content' and 'follow'; our choice.

  Attributes:
    recency: weight of a history item over that of the next younger one.
    window: how far apart two items may stand to count as following.
    history_items: how many of the last items count; beyond 20 they weigh less
      than a hundredth of the youngest.
  """

  recency: float = 0.8
  window: int = 3
  history_items: int = 20

  def __post_init__(self):
    if not 0 < self.recency <= 1:
      raise ValueError(f'recency is {self.recency}; it must lie in (0, 1].')
    for name in ('window', 'history_items'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name} is {getattr(self, name)}; give 1 or more.')


class Evidence:
  """What training knows of a catalogue of I items, as columns of lists.

  Attributes:
    names: of the columns, F of them: `NAMES`, 'sasrec' where a model is given,
      then the user's.
    features: what the items share.
    order: which item comes after which.
    scales: unit of each column, of `scales`; None leaves them in their own.
  """

  def __init__(
    self,
    dataset: dataset_lib.Dataset,
    splits: splits_lib.Splits,
    cfg: EvidenceConfig,
    sasrec: sasrec_lists.Model | None = None,
    *,
    extra_names: Sequence[str] = (),
    scales: Sequence[float] | None = None,
  ):
    """Counts in the training part, `sequence(u)[:train_end[u]]`.

    Args:
      dataset: items and sequences.
      splits: how much of each sequence counts; nothing of a user whose
        `train_end` is 0.
      cfg: how histories count.
      sasrec: gives a column where there is one; trained on nothing else.
      extra_names: of E columns that lists bring (`dataset.slate_columns`).
      scales: unit of each column, F numbers above 0; see the class.

    Raises:
      ValueError: a name that stands twice, or is one of ours; another number of
        units than of columns.
    """
    given = (*NAMES, SASREC, *extra_names)
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
      raise ValueError(
        f'The columns {twice} stand twice among {given}; rename your own.'
      )
    self.names = (
      *NAMES,
      *([SASREC] if sasrec is not None else []),
      *extra_names,
    )
    self.scales = None if scales is None else tuple(scales)
    if self.scales is not None and len(self.scales) != len(self.names):
      raise ValueError(
        f'{len(self.scales)} units for the {len(self.names)} columns '
        f'{list(self.names)}; give one each.'
      )
    self.features = item_features.features(dataset.items)
    self.order = item_features.order(
      [dataset.sequence(u)[:end] for u, end in enumerate(splits.train_end)],
      dataset.num_items,
      cfg.window,
    )
    counts = popularity.train(dataset, splits).counts
    self._popularity = np.log1p(counts)
    self._trained = dataset.num_items
    self._cfg = cfg
    self._sasrec = sasrec
    self._extra = len(extra_names)

  @property
  def lengths(self) -> tuple[int, ...]:
    """Lengths of histories, one for each shape that SASRec computes in."""
    return () if self._sasrec is None else sasrec_lists.lengths(self._sasrec)

  def grown(self, items: Sequence[dataset_lib.Item]) -> 'Evidence':
    """Returns what is known of a catalogue that has grown.

    New items share features with old ones. How popular they are, what they
    follow and what SASRec thinks of them is unknown: as candidates they get the
    mean of the list's others, so that these columns say nothing of them, and
    SASRec reads histories without them.

    Args:
      items: N items, whose indices are those behind the first I.
    """
    made = copy.copy(self)
    made.features = self.features.grown(items)
    made._popularity = np.pad(self._popularity, (0, len(items)))
    count = len(made._popularity)
    matrix = self.order.matrix.copy()
    matrix.resize((count, count))
    counts = self.order.counts.copy()
    counts.resize((count, count))
    made.order = item_features.Order(
      counts,
      matrix,
      np.pad(self.order.before, (0, len(items))),
      np.pad(self.order.after, (0, len(items))),
    )
    return made

  def columns(
    self,
    histories: Sequence[np.ndarray],
    candidates: np.ndarray,
    scores: np.ndarray,
    extra: np.ndarray | None = None,
  ) -> np.ndarray:
    """Computes the columns of N lists.

    'score' is the retriever's; 'log_rank' -log(1 + place); 'popularity' log(1 +
    count); 'content' the square root of what is shared with the history;
    'follow' that of how often it comes after the history's items; 'sasrec' the
    logit (0 for an empty history). The user's stand behind them. Roots, since
    the deviation of a count grows with the root of its mean.

    Args:
      histories: item indices of each user, oldest first; may be empty.
      candidates: int [N, K], item indices in their incoming order, -1 at the
        end of shorter lists.
      scores: float [N, K], the retriever's; not read in padding.
      extra: float [N, K, E], what the lists bring; not read in padding.

    Returns:
      float32 [N, K, F], each column with mean 0 over the real entries of its
      list, in units of `scales`, at most 10 of them; 0 in padding and where all
      are equal. The score has deviation 1.

    Raises:
      ValueError: shapes that do not fit, an item that the catalogue lacks, or a
        number that is not finite.
    """
    candidates = np.asarray(candidates)
    if extra is None:
      extra = np.zeros((*candidates.shape, 0), np.float32)
    real = candidates >= 0
    self._check(histories, candidates, scores, extra)
    logits = self._logits(histories, candidates)
    content, follow = self._from_history(histories, candidates)
    place = np.arange(candidates.shape[1])
    known = real & (candidates < self._trained)
    raw = [
      np.broadcast_to(-np.log1p(place), candidates.shape),
      _fill(self._popularity[candidates], known),
      np.sqrt(content),
      _fill(np.sqrt(follow), known),
    ]
    if logits is not None:
      raw.append(_fill(logits, known))
    raw += list(np.moveaxis(np.asarray(extra), -1, 0))
    centred, _ = item_features.centre(np.stack(raw), real)
    score = item_features.standardise(np.asarray(scores), real)
    found = np.moveaxis(np.stack([score, *centred]), 0, -1).astype(np.float32)
    return found if self.scales is None else scaled(found, self.scales)

  def _check(
    self,
    histories: Sequence,
    candidates: np.ndarray,
    scores: np.ndarray,
    extra: np.ndarray,
  ) -> None:
    real = candidates >= 0
    shapes = np.shape(scores), np.shape(extra)
    expected = real.shape, (*real.shape, self._extra)
    if real.ndim != 2 or len(histories) != len(real) or shapes != expected:
      raise ValueError(
        f'{len(histories)} histories, candidates {real.shape}, scores '
        f'{shapes[0]} and own columns {shapes[1]} do not fit: for lists [N, K] '
        f'give N histories, scores [N, K] and the columns '
        f'{self.names[len(self.names) - self._extra :]} as [N, K, '
        f'{self._extra}].'
      )
    if (real[:, 1:] & ~real[:, :-1]).any():
      raise ValueError('Candidates follow padding; put -1 at the end.')
    if candidates.max(initial=-1) >= len(self._popularity):
      raise ValueError(
        f"Candidate {candidates.max()} is none of the catalogue's "
        f'{len(self._popularity)} items.'
      )
    own = self.names[len(self.names) - self._extra :]
    named = [('score', np.asarray(scores))]
    named += zip(own, np.moveaxis(np.asarray(extra), -1, 0), strict=True)
    for name, values in named:
      bad = real & ~np.isfinite(values)
      if bad.any():
        row, place = np.argwhere(bad)[0]
        raise ValueError(
          f'Column {name!r} is {values[row, place]} for place {place} of list '
          f'{row}; give finite numbers.'
        )

  def _from_history(
    self, histories: Sequence[np.ndarray], candidates: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns 'content' and 'follow', float32 [N, K]; garbage in padding."""
    known = np.maximum(candidates, 0)
    found = np.zeros((2, *known.shape), np.float32)
    width = max(self.features.matrix.shape[1], len(self._popularity))
    size = max(_ENTRIES // width, 1)
    for start in range(0, len(known), size):
      chunk = slice(start, start + size)
      found[:, chunk] = self._products(histories[chunk], known[chunk])
    return found[0], found[1]

  def _products(
    self, histories: Sequence[np.ndarray], known: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """`_from_history` of a chunk, all products with the catalogue at once."""
    rows, items, weights = self._profile(histories)
    lists, each = known.shape
    owner = np.arange(known.size) // each

    def profile(matrix: scipy.sparse.csr_matrix) -> np.ndarray:
      width = matrix.shape[1]
      place, column, value = item_features.entries(matrix, items)
      return np.bincount(
        rows[place] * width + column, weights[place] * value, lists * width
      ).reshape(lists, width)

    theme, after = profile(self.features.matrix), profile(self.order.matrix)
    place, column, value = item_features.entries(
      self.features.matrix, known.ravel()
    )
    shared = theme[owner[place], column] * value
    content = np.bincount(place, shared, known.size).reshape(known.shape)
    return content, after[owner, known.ravel()].reshape(known.shape)

  def _profile(
    self, histories: Sequence[np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns list, item and recency weight of the last history items."""
    recent = item_features.pad(
      [history[-self._cfg.history_items :] for history in histories]
    )
    real = recent >= 0
    age = real.sum(axis=1, keepdims=True) - 1 - np.arange(recent.shape[1])
    rows, columns = np.nonzero(real)
    return rows, recent[rows, columns], self._cfg.recency ** age[rows, columns]

  def _logits(
    self, histories: Sequence[np.ndarray], candidates: np.ndarray
  ) -> np.ndarray | None:
    """SASRec's logits, [N, K]; 0 where there is no history.

    Those of new items and of padding mean nothing.
    """
    if self._sasrec is None:
      return None
    logits = np.zeros(candidates.shape, np.float32)
    if self._trained < len(self._popularity):
      histories = [x[x < self._trained] for x in map(np.asarray, histories)]
    rows = np.flatnonzero([len(history) for history in histories])
    known = (candidates >= 0) & (candidates < self._trained)
    if len(rows):
      logits[rows] = sasrec_lists.scores(
        self._sasrec,
        [histories[row] for row in rows],
        np.where(known, candidates, 0)[rows],
      )
    return logits


def _fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Gives what is not known the mean of its list's others, [N, K]."""
  if known.all():
    return values
  total = np.where(known, values, 0).sum(axis=1, keepdims=True)
  mean = total / np.maximum(known.sum(axis=1, keepdims=True), 1)
  return np.where(known, values, mean)


def scales(columns: np.ndarray, real: np.ndarray) -> tuple[float, ...]:
  """Finds the units of columns: their deviation in the median list.

  A median, so that a few lists with numbers far off do not shrink all others.

  Args:
    columns: float32 [N, K, F], of `Evidence.columns` without units.
    real: bool [N, K], which entries are no padding.

  Returns:
    F numbers above 0; 1 where no list has two different numbers.
  """
  _, deviation = item_features.centre(np.moveaxis(columns, -1, 0), real)
  found = [each[each > 0] for each in deviation[..., 0]]
  return tuple(float(np.median(x)) if len(x) else 1.0 for x in found)


def scaled(columns: np.ndarray, units: Sequence[float]) -> np.ndarray:
  """Brings columns to their units, and cuts numbers that are far off.

  Args:
    columns: float32 [N, K, F], of `Evidence.columns` without units.
    units: F numbers above 0, of `scales`.

  Returns:
    float32 [N, K, F].
  """
  return np.clip(columns / np.float32(units), -_LIMIT, _LIMIT)
