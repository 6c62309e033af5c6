"""Where candidate lists come from: the settings, and the retrievers."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.data import splits as splits_lib
from gr2_jax.decode import retrieve
from gr2_jax.lm import io
from gr2_jax.rank import evidence as evidence_lib
from gr2_jax.rank import popularity
from gr2_jax.rank import sasrec as sasrec_lib
from gr2_jax.run import artifacts, runner
from gr2_jax.sid import index as sid_index

SLATES = 'slates'
SOURCES = ('lm', 'sasrec', 'popularity', SLATES)
BASELINES = ('popularity', 'sasrec')

# (users [N], positions [N]) -> items and scores [N, n].
TopK = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class CandidatesConfig:
  """Where candidate lists come from.

  Attributes:
    source: 'lm', the mid-trained model as a generative retriever [P]; 'sasrec'
      or 'popularity' [G]; 'slates', the data set's graded lists [P: GR2-T].
    k: K, candidates a list [P: 10]; slates may be shorter.
    width: W of the beam search [G].
    batch_size: prompts searched at a time [G].
    chunk: lists between two points at which an interrupted run resumes [G].
    exclude_seen: leaves out the history's items [G]; nobody rates a film or
      reviews a product twice in these data. Turn it off where people buy the
      same again, or their targets cannot be found.
    baselines: retrievers measured beside the source, of 'popularity' and
      'sasrec'.
    sasrec: the baseline's network and training.
    evidence: how histories count in the columns.
    folds: n > 1 divides the users into n folds; a retriever that never saw the
      users of a fold makes lists for their training positions, which are many
      more than what is held out [G]. 0 makes none. See `stages/folds.py`.
    fold_positions: how many of the last training positions of a user get such a
      list, 0 for all; later ones are more like what is served.
    fold_steps: share of mid-training's steps that the folds' models are given.
    fold_use: what folds' lists are for: 'head', the weights of the evidence,
      whose columns are cross-fitted too, or 'sft', also the language model
      [G]. That one has been mid-trained on their targets, and learns to trust
      what it has memorised.
  """

  source: str = 'lm'
  k: int = 10
  width: int = 20
  batch_size: int = 32
  chunk: int = 4096
  exclude_seen: bool = True
  baselines: tuple[str, ...] = BASELINES
  sasrec: sasrec_lib.SASRecConfig = sasrec_lib.SASRecConfig()
  evidence: evidence_lib.EvidenceConfig = evidence_lib.EvidenceConfig()
  folds: int = 0
  fold_positions: int = 0
  fold_steps: float = 1.0
  fold_use: str = 'head'

  def __post_init__(self):
    if self.source not in SOURCES:
      raise ValueError(
        f'candidates.source is {self.source!r}; it is one of {SOURCES}.'
      )
    unknown = sorted(set(self.baselines) - set(BASELINES))
    if unknown:
      raise ValueError(
        f'candidates.baselines names {unknown}; they are {BASELINES}.'
      )
    for name in ('k', 'batch_size', 'chunk'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'candidates.{name} is {getattr(self, name)}; give 1 or more.'
        )
    if self.fold_use not in ('head', 'sft'):
      raise ValueError(
        f"candidates.fold_use is {self.fold_use!r}; it is 'head' or 'sft'."
      )
    if self.width < self.length:
      raise ValueError(
        f'candidates.width is {self.width}, but lists of {self.length} items '
        'are searched (k, and 10 for the metrics): raise it.'
      )
    self._check_folds()

  def _check_folds(self) -> None:
    if self.folds < 0 or self.folds == 1:
      raise ValueError(
        f'candidates.folds is {self.folds}: a retriever needs users that it '
        'did not see; give 2 or more, or 0 for no such lists.'
      )
    if self.folds and self.source == SLATES:
      raise ValueError(
        f'candidates.folds is {self.folds}, but with candidates.source='
        f'{SLATES!r} all lists come from the data and no retriever makes any: '
        'set folds to 0.'
      )
    if self.fold_positions < 0:
      raise ValueError(
        f'candidates.fold_positions is {self.fold_positions}; give the number '
        'of positions a user, or 0 for all.'
      )
    if not 0 < self.fold_steps <= 1:
      raise ValueError(
        f'candidates.fold_steps is {self.fold_steps}; it is a share of '
        "mid-training's steps: above 0, at most 1."
      )

  @property
  def length(self) -> int:
    """Items found for each prompt: K, and 10 for the metrics."""
    return max(self.k, 10)

  @property
  def retriever(self) -> str:
    """What is measured over the whole catalogue; the LM beside slates."""
    return 'lm' if self.source == SLATES else self.source

  @property
  def sasrec_column(self) -> bool:
    """Whether SASRec's logit is a column; as a source it is the score."""
    return 'sasrec' in self.baselines and self.source != 'sasrec'


@dataclasses.dataclass(frozen=True)
class Sources:
  """The retrievers that know one part of the users, each made when asked for.

  Attributes:
    cfg: of the stage.
    store: what earlier stages wrote.
    context: of the stage.
    splits: what the retrievers may know.
    directory: SASRec is trained in it.
    seed: of SASRec.
    find_model: gives the directory of the language model.
    scales: units of the evidence columns, as in `evidence.Evidence`.
    made: those that were asked for.
  """

  cfg: CandidatesConfig
  store: artifacts.Artifacts
  context: runner.Context
  splits: splits_lib.Splits
  directory: pathlib.Path
  seed: int
  find_model: Callable[[], pathlib.Path]
  scales: tuple[float, ...] | None = None
  made: dict = dataclasses.field(default_factory=dict)

  def get(self, name: str) -> TopK:
    """Returns the retriever `name`, trained."""
    if name not in self.made:
      self.made[name] = getattr(self, f'_{name}')()
    return self.made[name]

  def histories(
    self, users: np.ndarray, positions: np.ndarray
  ) -> list[np.ndarray]:
    """Returns what comes before positions [N] of users [N]: N arrays."""
    pairs = zip(users, positions, strict=True)
    return [self.store.history(user, position) for user, position in pairs]

  def _lm(self) -> TopK:
    store = self.store
    retriever = make_lm(store, self.context.mesh, self.find_model(), self.cfg)

    def top_k(users, positions):
      histories = self.histories(users, positions)
      prompts = [store.prompter.retrieval(history) for history in histories]
      seen = [h if self.cfg.exclude_seen else h[:0] for h in histories]
      return retriever.top_k(prompts, self.cfg.length, seen)

    return top_k

  def _popularity(self) -> TopK:
    model = popularity.train(self.store.dataset, self.splits)
    return self._by(popularity.top_k, model)

  def _sasrec(self) -> TopK:
    return self._by(sasrec_lib.top_k, self._trained_sasrec)

  @functools.cached_property
  def evidence(self) -> evidence_lib.Evidence:
    """The columns of lists, of what these retrievers may know."""
    return evidence_lib.Evidence(
      self.store.dataset,
      self.splits,
      self.cfg.evidence,
      self._trained_sasrec if self.cfg.sasrec_column else None,
      extra_names=self.store.user_columns,
      scales=self.scales,
    )

  @functools.cached_property
  def _trained_sasrec(self) -> sasrec_lib.Model:
    return sasrec_lib.train(
      self.store.dataset,
      self.splits,
      self.cfg.sasrec,
      self.context.mesh,
      self.directory / 'sasrec',
      seed=self.seed,
      policy=self.context.policy(),
      tracking=self.context.tracking,
    )

  def _by(self, top_k: Callable, model: object) -> TopK:
    """Applies a baseline to histories."""
    return lambda users, positions: top_k(
      model,
      self.histories(users, positions),
      self.cfg.length,
      self.cfg.exclude_seen,
    )


def make_lm(
  store: artifacts.Artifacts,
  mesh: jax.sharding.Mesh,
  directory: pathlib.Path,
  cfg: CandidatesConfig,
) -> retrieve.Retriever:
  """Reads the language model that finds the items of a catalogue.

  Args:
    store: gives the catalogue.
    mesh: where to.
    directory: of the model.
    cfg: width and batches of the search.
  """
  shape, params = io.load_for_decoding(directory, mesh)
  index = sid_index.build(store.sids, store.vocab.codes)
  return retrieve.Retriever(
    config=shape,
    params=params,
    mesh=mesh,
    index=sharding.replicate(mesh, index),
    fmt=store.vocab.answer_format(),
    width=cfg.width,
    batch_size=cfg.batch_size,
  )


def load_sasrec(
  store: artifacts.Artifacts, mesh: jax.sharding.Mesh
) -> sasrec_lib.Model | None:
  """Reads the SASRec of the candidates stage; None where it trained none.

  Args:
    store: the run's artifacts.
    mesh: where to.
  """
  directory = store.workdir / 'candidates' / 'sasrec'
  if not directory.exists():
    return None
  cfg = config_lib.build(CandidatesConfig, store.config.candidates)
  items = store.dataset.num_items
  return sasrec_lib.load(items, cfg.sasrec, mesh, directory)


def make_evidence(
  store: artifacts.Artifacts, mesh: jax.sharding.Mesh
) -> evidence_lib.Evidence:
  """Makes what gives new lists the columns that a run's lists have.

  Args:
    store: the run's artifacts.
    mesh: where SASRec runs, if the columns hold its scores.
  """
  cfg = config_lib.build(CandidatesConfig, store.config.candidates)
  model = load_sasrec(store, mesh) if cfg.sasrec_column else None
  return evidence_lib.Evidence(
    store.dataset,
    store.splits,
    cfg.evidence,
    model,
    extra_names=store.user_columns,
    scales=store.evidence_scales,
  )
