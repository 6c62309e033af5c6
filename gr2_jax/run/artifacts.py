"""Reads what earlier stages wrote: the one place with names and keys."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.data import stored
from gr2_jax.run import lineage
from gr2_jax.text import prompts, semantic_ids
from gr2_jax.text import vocab as vocab_lib

# The default of `TracesConfig.sft_share`.
SFT_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class CandidateLists:
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
    features: float32 [N, K, F], the evidence columns (`evidence_names`); F = 0
      where a world wrote none.
    fold: int32 [N], which fold's retriever made the list; -1: the final one.
  """

  user: np.ndarray
  position: np.ndarray
  candidates: np.ndarray
  scores: np.ndarray
  target: np.ndarray
  grades: np.ndarray
  features: np.ndarray
  fold: np.ndarray

  def __len__(self) -> int:
    """Returns the number of lists N."""
    return len(self.user)

  def take(self, rows: np.ndarray) -> 'CandidateLists':
    """Returns the lists at `rows` (indices or booleans)."""
    fields = dataclasses.fields(self)
    return CandidateLists(
      **{f.name: getattr(self, f.name)[rows] for f in fields}
    )

  def hits(self) -> 'CandidateLists':
    """Returns the lists that hold their target: what is re-ranked [P]."""
    return self.take(self.target >= 0)


def join(first: CandidateLists, second: CandidateLists) -> CandidateLists:
  """Puts two sets of lists of one width behind each other."""
  return CandidateLists(
    **{
      f.name: np.concatenate([getattr(first, f.name), getattr(second, f.name)])
      for f in dataclasses.fields(CandidateLists)
    }
  )


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
    return stored.load(self.workdir / 'data')

  @property
  def user_columns(self) -> tuple[str, ...]:
    """Names of the columns that the lists of this run carry."""
    if self.config.candidates.get('source') != 'slates':
      return ()
    return self.dataset.slate_columns

  @functools.cached_property
  def split(self) -> splits_lib.SplitConfig:
    """How many positions are held out."""
    return config_lib.build(splits_lib.SplitConfig, self.config.data.split)

  @functools.cached_property
  def splits(self) -> splits_lib.Splits:
    """The held-out positions."""
    return splits_lib.make(self.dataset, self.split)

  @functools.cached_property
  def sids(self) -> np.ndarray:
    """The semantic IDs, int32 [I, L], without collisions."""
    return files.read_npz(self.workdir / 'sid' / 'sids.npz', 'sids')['sids']

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

  @functools.cached_property
  def citations(self) -> semantic_ids.Citations:
    """Finds the items that texts cite."""
    return semantic_ids.Citations(self.sids)

  def title(self, item: int) -> str:
    """Returns what people read for an item: its title, or else its id."""
    record = self.dataset.items[item]
    return record.title or record.item_id

  def titles(self, text: str, shown: Sequence[int] = ()) -> dict[str, str]:
    """Returns the title of each item that a text cites, by citation.

    Args:
      text: the text.
      shown: items that its prompt showed. Where two items that came after
        training have one semantic ID, since different lists brought them, the
        one that was shown is meant.
    """
    if not text:
      return {}
    named = self.citations.named(text)
    own = semantic_ids.Citations(self.sids[np.asarray(shown, int)]).named(text)
    named |= {cited: shown[place] for cited, place in own.items()}
    return {cited: self.title(item) for cited, item in named.items()}

  def lists(self, split: str) -> CandidateLists:
    """Returns the candidate lists of 'train', 'valid', 'test' or 'folds'."""
    path = self.workdir / 'candidates' / f'{split}.npz'
    names = 'user', 'position', 'candidates', 'scores', 'target'
    arrays = files.read_npz(path, *names)
    target = arrays['target']
    # Retrieved lists have one true item: what they are worth is not stored.
    shape = arrays['candidates'].shape
    one_hot = np.arange(shape[1]) == target[:, None]
    arrays.setdefault('grades', one_hot.astype(np.int32))
    arrays.setdefault('features', np.zeros((*shape, 0), np.float32))
    arrays.setdefault('fold', np.full(len(target), -1, np.int32))
    return CandidateLists(
      **{f.name: arrays[f.name] for f in dataclasses.fields(CandidateLists)}
    )

  @property
  def has_folds(self) -> bool:
    """Whether there are cross-fitted lists."""
    return (self.workdir / 'candidates' / 'folds.npz').exists()

  def sft_lists(self) -> CandidateLists:
    """Returns what SFT trains on and a teacher explains: lists with a target.

    They are `traces.sft_share` of those of the last training positions,
    drawn by the run's seed, and the folds' lists where `candidates.fold_use`
    says so. The rest is `rl_lists`: a policy learns nothing from lists that it
    has memorised.

    Raises:
      ValueError: no such list holds its target.
    """
    found = self._divided()[0]
    if self.has_folds and self._candidates('fold_use', 'head') == 'sft':
      found = join(self.lists('folds').hits(), found)
    return self._some(found, 'SFT')

  def rl_lists(self) -> CandidateLists:
    """Returns the lists with a target that SFT does not train on.

    Raises:
      ValueError: there is none.
    """
    return self._some(self.unseen_lists(), 'RL')

  def unseen_lists(self) -> CandidateLists:
    """Returns `rl_lists`, of which there may be none."""
    return self._divided()[1]

  @property
  def _sft_share(self) -> float:
    return self.config.get('traces', {}).get('sft_share', SFT_SHARE)

  def training_lists(self) -> CandidateLists:
    """Returns all lists with a target that SFT and RL may read."""
    found = self.lists('train').hits()
    return join(self.lists('folds').hits(), found) if self.has_folds else found

  def _divided(self) -> tuple[CandidateLists, CandidateLists]:
    hits = self.lists('train').hits()
    seed = self.config.get('seed', 0)
    order = np.random.default_rng(seed).permutation(len(hits))
    count = round(self._sft_share * len(hits))
    return hits.take(np.sort(order[:count])), hits.take(np.sort(order[count:]))

  def _candidates(self, name: str, default: Any) -> Any:
    return self.config.get('candidates', {}).get(name, default)

  def _some(self, lists: CandidateLists, whose: str) -> CandidateLists:
    if not len(lists):
      raise ValueError(
        f'{whose} has no training list that holds its target '
        f'(traces.sft_share = {self._sft_share}): train '
        'the retriever longer (midtrain.all.steps), raise candidates.k, or '
        'hold out more training positions (data.split.n_train).'
      )
    return lists

  @property
  def evidence_names(self) -> tuple[str, ...]:
    """Names of the columns of candidate lists; none where a world has none."""
    return tuple(self._evidence['names']) if self._evidence else ()

  @property
  def evidence_scales(self) -> tuple[float, ...] | None:
    """The unit of each column (`rank.evidence.scales`); None as above."""
    return tuple(self._evidence['scales']) if self._evidence else None

  @functools.cached_property
  def _evidence(self) -> dict[str, list]:
    path = self.workdir / 'candidates' / 'evidence.json'
    if not path.exists():
      return {}
    found = files.read_object(path)
    if 'scales' not in found:
      raise ValueError(
        f'{path} has no `scales`: the lists are of an older version, whose '
        'columns had other units. Run the pipeline again with --redo.'
      )
    names, scales = found.get('names'), found['scales']
    if not (
      isinstance(names, list)
      and all(isinstance(name, str) for name in names)
      and isinstance(scales, list)
      and len(scales) == len(names)
      and all(isinstance(x, float) and 0 < x < math.inf for x in scales)
    ):
      raise ValueError(
        f'{path} has no list of names with a unit above 0 for each: restore it '
        'from a copy, or make the stage candidates again.'
      )
    return found

  def history(self, user: int, position: int) -> np.ndarray:
    """Returns the items before a held-out position, oldest first."""
    return self.dataset.sequence(user)[:position]

  def model(self, stage: str) -> pathlib.Path:
    """Returns the directory of the model that a stage wrote."""
    return self.workdir / stage / 'model'


def open_run(workdir: pathlib.Path | str, stage: str) -> Artifacts:
  """Opens a run to read one of its stages.

  Args:
    workdir: the run's directory.
    stage: the stage that is read; it must be finished.

  Returns:
    The artifacts, with the config that the stage was made with.

  Raises:
    FileNotFoundError: no run, or the stage is not finished.
    ValueError: stages that do not belong together; see `lineage.check`.
  """
  workdir = pathlib.Path(workdir).expanduser().absolute()
  return Artifacts(lineage.config(workdir, stage), workdir)
