"""Which interactions are held out, and from whom.

Of a user's sequence of length n the last positions are test targets, those
before them validation targets, those before these re-rank training targets; the
retriever trains on the rest (gr2_jax/README.md, "Splits"):

    0 ........ train_end | train | valid | test | n
    retriever trains       RL, SFT

`leave_one_out` is the protocol of the literature (one position each) [P];
`last_n` has several positions each, for few users with long histories. They may
differ in number: hundreds of test lists are needed, and thousands to train on.
"""

import dataclasses

import numpy as np

from gr2_jax.data import dataset as dataset_lib

NAMES = ('train', 'valid', 'test')


@dataclasses.dataclass(frozen=True)
class SplitConfig:
  """How many positions of each user are held out.

  Attributes:
    kind: 'leave_one_out' (one test and one validation position, one or no
      training position) or 'last_n'.
    n_test: test positions a user.
    n_valid: validation positions a user.
    n_train: re-rank training positions a user, before the validation ones. With
      0 the retriever trains on all that comes before validation, and there are
      no training lists: for retrieval numbers that compare with the literature.
    min_history: how many interactions must precede a target, our choice.
  """

  kind: str = 'leave_one_out'
  n_test: int = 1
  n_valid: int = 1
  n_train: int = 1
  min_history: int = 1

  def __post_init__(self):
    if self.kind not in ('leave_one_out', 'last_n'):
      raise ValueError(
        f"split.kind is {self.kind!r}; use 'leave_one_out' or 'last_n'."
      )
    for field in ('n_test', 'n_valid', 'n_train'):
      if getattr(self, field) < 0:
        raise ValueError(f'split.{field} is below 0; give 0 or more.')
    if self.min_history < 1:
      raise ValueError(
        f'split.min_history is {self.min_history}: a target needs a history; '
        'give 1 or more.'
      )
    sizes = (self.n_test, self.n_valid, self.n_train)
    if self.kind == 'leave_one_out' and sizes not in ((1, 1, 1), (1, 1, 0)):
      raise ValueError(
        f'leave_one_out holds out one position a split, not {sizes} (test, '
        "valid, train); use kind 'last_n' for other numbers."
      )


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
  """The held-out positions of a data set with U users.

  Attributes:
    train_end: int64 [U]; a retriever may train on `sequence(u)[:train_end[u]]`
      and on nothing else.
    examples: 'train', 'valid' and 'test' -> (user int32 [n], position int32
      [n]), by user and then by position. The target of an example is
      `sequence(user)[position]`, its history `sequence(user)[:position]`.
  """

  train_end: np.ndarray
  examples: dict[str, tuple[np.ndarray, np.ndarray]]

  def without(self, users: np.ndarray) -> 'Splits':
    """Leaves users out, as if they had done nothing.

    Args:
      users: int [n], their indices.

    Returns:
      The splits of the others: the training part of these users is empty, and
      they have no examples. User indices stay.
    """
    gone = np.zeros(len(self.train_end), bool)
    gone[users] = True
    examples = {
      name: (user[~gone[user]], position[~gone[user]])
      for name, (user, position) in self.examples.items()
    }
    return Splits(np.where(gone, 0, self.train_end), examples)

  def inner(
    self, users: np.ndarray, min_history: int, last: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Lists the positions within the training parts of users.

    Args:
      users: int [n], increasing.
      min_history: items that must come before a position.
      last: the number of last positions of each user; 0 for all.

    Returns:
      (user int32 [m], position int32 [m]) as in `examples`, with min_history
      <= position < train_end[user].
    """
    end = self.train_end[users]
    begin = np.minimum(min_history, end)
    if last:
      begin = np.maximum(begin, end - last)
    row, position = _positions(begin, end)
    return users[row].astype(np.int32), position


def bounds(lengths: np.ndarray, cfg: SplitConfig) -> np.ndarray:
  """Finds where the splits of each sequence begin.

  A user who is too short for all the held-out positions gives first to test,
  then to validation, then to training, and always keeps `min_history` (or all,
  if there is not more) for the retriever.

  Args:
    lengths: int [U], length of each sequence.
    cfg: what to hold out.

  Returns:
    int64 [U, 4]: begin of train (= end of what the retriever sees), of valid,
    of test, and the sequence's end.
  """
  end = np.asarray(lengths, np.int64)
  columns = [end]
  for count in (cfg.n_test, cfg.n_valid, cfg.n_train):
    room = np.maximum(columns[0] - cfg.min_history, 0)
    columns.insert(0, columns[0] - np.minimum(count, room))
  return np.stack(columns, axis=1)


def make(dataset: dataset_lib.Dataset, cfg: SplitConfig) -> Splits:
  """Splits every user's sequence.

  Args:
    dataset: the sequences.
    cfg: what to hold out.

  Returns:
    The splits.

  Raises:
    ValueError: no user has a test example (all are too short).
  """
  edges = bounds(dataset.lengths, cfg)
  examples = {
    name: _positions(edges[:, i], edges[:, i + 1])
    for i, name in enumerate(NAMES)
  }
  if cfg.n_test and not examples['test'][0].size:
    raise ValueError(
      f'None of the {dataset.num_users} users of {dataset.name!r} is longer '
      f'than min_history={cfg.min_history}, so there is nothing to test; lower '
      'min_history or give longer sequences.'
    )
  return Splits(train_end=edges[:, 0], examples=examples)


def _positions(
  begin: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Lists (user, position) for begin[user] <= position < end[user]."""
  counts = end - begin
  user = np.repeat(np.arange(len(begin)), counts)
  within = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
  position = np.repeat(begin, counts) + within
  return user.astype(np.int32), position.astype(np.int32)
