"""Reads what earlier stages wrote: one place that knows names and keys."""

import dataclasses
import functools
import pathlib

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.text import prompts
from gr2_jax.text import vocab as vocab_lib


@dataclasses.dataclass(frozen=True)
class Lists:
  """Candidate lists of one split.

  Attributes:
    user: int32 [N].
    position: int32 [N], place of the target in the user's sequence.
    candidates: int32 [N, K], item indices in pre-rank order, -1 at the end of
      shorter lists.
    scores: float32 [N, K], of the pre-ranker.
    target: int32 [N], place of the target among the candidates; -1: absent. Of
      several positives the best graded, first in pre-rank order.
    grades: int32 [N, K], what each candidate is worth: the labels of slates,
      else one-hot at the target; 0 for nothing.
  """

  user: np.ndarray
  position: np.ndarray
  candidates: np.ndarray
  scores: np.ndarray
  target: np.ndarray
  grades: np.ndarray

  def __len__(self) -> int:
    """Returns the number of lists N."""
    return len(self.user)

  def take(self, rows: np.ndarray) -> 'Lists':
    """Returns the lists at `rows` (indices or booleans)."""
    fields = dataclasses.fields(self)
    return Lists(**{f.name: getattr(self, f.name)[rows] for f in fields})

  def hits(self) -> 'Lists':
    """Returns the lists that hold their target: what is re-ranked [P]."""
    return self.take(self.target >= 0)


@dataclasses.dataclass(frozen=True)
class Artifacts:
  """The artifacts of one run; each is read when it is first asked for.

  Attributes:
    config: the run's config.
    workdir: the run's directory.
  """

  config: ml_collections.ConfigDict
  workdir: pathlib.Path

  @functools.cached_property
  def dataset(self) -> dataset_lib.Dataset:
    """The catalogue and the sequences."""
    return dataset_lib.load(self.workdir / 'data')

  @functools.cached_property
  def splits(self) -> splits_lib.Splits:
    """The held-out positions."""
    cfg = config_lib.build(splits_lib.SplitConfig, self.config.data.split)
    return splits_lib.make(self.dataset, cfg)

  @functools.cached_property
  def sids(self) -> np.ndarray:
    """The semantic IDs, int32 [I, L], without collisions."""
    with np.load(self.workdir / 'sid' / 'sids.npz') as arrays:
      return arrays['sids']

  @functools.cached_property
  def vocab(self) -> vocab_lib.Vocab:
    """The vocabulary of all models."""
    return vocab_lib.Vocab.load(self.workdir / 'midtrain' / 'vocab')

  @functools.cached_property
  def prompt(self) -> prompts.PromptConfig:
    """What a re-ranking prompt shows."""
    return config_lib.build(prompts.PromptConfig, self.config.text.prompt)

  @functools.cached_property
  def prompter(self) -> prompts.Prompter:
    """Writes the prompts."""
    return prompts.Prompter(
      self.vocab, self.dataset.items, self.sids, self.prompt
    )

  def lists(self, split: str) -> Lists:
    """Returns the candidate lists of 'train', 'valid' or 'test'."""
    path = self.workdir / 'candidates' / f'{split}.npz'
    with np.load(path) as stored:
      arrays = dict(stored)
    target = arrays['target']
    # Retrieved lists have one true item: what they are worth is not stored.
    one_hot = np.arange(arrays['candidates'].shape[1]) == target[:, None]
    arrays.setdefault('grades', one_hot.astype(np.int32))
    return Lists(**{f.name: arrays[f.name] for f in dataclasses.fields(Lists)})

  def history(self, user: int, position: int) -> np.ndarray:
    """Returns the items before a held-out position, oldest first."""
    return self.dataset.sequence(user)[:position]

  def model(self, stage: str) -> pathlib.Path:
    """Returns the directory of the model that a stage wrote."""
    return self.workdir / stage / 'model'
