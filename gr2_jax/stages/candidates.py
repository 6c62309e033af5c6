"""Candidates: the lists that are re-ranked, and how well they were retrieved.

Writes `workdir/candidates/{train,valid,test}.npz` with N lists each: `user` and
`position` int32 [N], `candidates` int32 [N, K] best first, `scores` float32
[N, K], `target` int32 [N], place of the true item among the candidates or -1,
and `rank` int32 [N], its place among the first max(K, 10), or this number; then
`workdir/retrieval.json`, the report of the road up to here. Of lists from
slates `stages/slates.py` tells.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, processes, progress, sharding
from gr2_jax.data import splits as splits_lib
from gr2_jax.decode import retrieve
from gr2_jax.lm import decoder, io
from gr2_jax.rank import popularity, sasrec, scores
from gr2_jax.sid import index as sid_index
from gr2_jax.stages import artifacts, retrieval, runner, slates

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
    exclude_seen: leaves out what the history holds [G]; nobody rates a film or
      reviews a product twice in these data. Turn it off where people buy the
      same again, or their targets cannot be found.
    baselines: retrievers measured beside the source, of 'popularity' and
      'sasrec'.
    sasrec: fields of `rank.sasrec.SASRecConfig`.
  """

  source: str = 'lm'
  k: int = 10
  width: int = 20
  batch_size: int = 32
  chunk: int = 4096
  exclude_seen: bool = True
  baselines: tuple[str, ...] = BASELINES
  sasrec: Mapping = dataclasses.field(default_factory=dict)

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
    if self.width < self.length:
      raise ValueError(
        f'candidates.width is {self.width}, but lists of {self.length} items '
        'are searched (k, and 10 for the metrics): raise it.'
      )

  @property
  def length(self) -> int:
    """Items found for each prompt: K, and 10 for the metrics."""
    return max(self.k, 10)

  @property
  def retriever(self) -> str:
    """What is measured over the whole catalogue; the LM beside slates."""
    return 'lm' if self.source == SLATES else self.source


@dataclasses.dataclass(frozen=True)
class _Sources:
  """The retrievers, each made when it is first asked for.

  Attributes:
    cfg: of the stage.
    store: what earlier stages wrote.
    context: of the stage.
    made: those that were asked for.
  """

  cfg: CandidatesConfig
  store: artifacts.Artifacts
  context: runner.Context
  made: dict[str, TopK] = dataclasses.field(default_factory=dict)

  def get(self, name: str) -> TopK:
    """Returns the retriever `name`, trained."""
    if name not in self.made:
      self.made[name] = getattr(self, f'_{name}')()
    return self.made[name]

  def _histories(
    self, users: np.ndarray, positions: np.ndarray
  ) -> list[np.ndarray]:
    pairs = zip(users, positions, strict=True)
    return [self.store.history(user, position) for user, position in pairs]

  def _lm(self) -> TopK:
    mesh, store = self.context.mesh, self.store
    shape, params = io.load(
      store.model('midtrain'), mesh, sharding.DECODE_RULES
    )
    shape, params = decoder.narrow(shape, params)
    retriever = retrieve.Retriever(
      config=shape,
      params=params,
      mesh=mesh,
      index=sharding.replicate(
        mesh, sid_index.build(store.sids, store.vocab.codes)
      ),
      fmt=store.vocab.answer_format(),
      width=self.cfg.width,
      batch_size=self.cfg.batch_size,
    )

    def top_k(users, positions):
      histories = self._histories(users, positions)
      prompts = [store.prompter.retrieval(history) for history in histories]
      seen = [h if self.cfg.exclude_seen else h[:0] for h in histories]
      return retriever.top_k(prompts, self.cfg.length, seen)

    return top_k

  def _popularity(self) -> TopK:
    model = popularity.train(self.store.dataset, self.store.splits)
    return self._by(popularity.top_k, model)

  def _sasrec(self) -> TopK:
    model = sasrec.train(
      self.store.dataset,
      self.store.splits,
      config_lib.build(sasrec.SASRecConfig, self.cfg.sasrec),
      self.context.mesh,
      self.context.directory / 'sasrec',
      self.context.seed,
      self.context.policy(),
      self.context.tracking,
    )
    return self._by(sasrec.top_k, model)

  def _by(self, top_k: Callable, model: object) -> TopK:
    """Applies a baseline to histories."""
    return lambda users, positions: top_k(
      model,
      self._histories(users, positions),
      self.cfg.length,
      self.cfg.exclude_seen,
    )


def _retrieve(
  sources: _Sources, name: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Finds lists for a split, a chunk at a time; a chunk on disk is kept.

  Rows go by the length of their history, so that a chunk fills few buckets.

  Args:
    sources: the retrievers.
    name: which of them.
    split: 'train', 'valid' or 'test'.

  Returns:
    items int32 [N, n] and scores float32 [N, n], n = `cfg.length`.
  """
  cfg, parts = sources.cfg, sources.context.directory / 'parts'
  processes.on_first(parts.mkdir, exist_ok=True)
  users, positions = sources.store.splits.examples[split]
  order = np.lexsort((users, positions))
  none = np.zeros((0, cfg.length))
  found = [(none.astype(np.int32), none.astype(np.float32))]
  desc = f'candidates, {name}, {split}'
  with progress.bar(total=len(order), desc=desc, unit='list') as bar:
    for start in range(0, len(order), cfg.chunk):
      path = parts / f'{name}_{split}_{start:09d}.npz'
      chosen = order[start : start + cfg.chunk]
      if not processes.on_first(path.exists):
        top_k = sources.get(name)
        items, values = top_k(users[chosen], positions[chosen])
        processes.on_first(files.atomic_savez, path, items=items, scores=values)
      with np.load(path) as arrays:
        found.append((arrays['items'], arrays['scores']))
      bar.update(len(chosen))
  back = np.argsort(order)
  items, values = (np.concatenate(x)[back] for x in zip(*found, strict=True))
  return items, values


def _write(
  sources: _Sources, split: str, items: np.ndarray, values: np.ndarray
) -> np.ndarray:
  """Writes the lists of a split; returns the place of each target [N]."""
  cfg, store = sources.cfg, sources.store
  users, positions = store.splits.examples[split]
  short = np.flatnonzero((items[:, : cfg.k] < 0).any(axis=1))
  if len(short):
    row = int(short[0])
    raise ValueError(
      f'User {store.dataset.user_ids[users[row]]!r} gets '
      f'{int((items[row] >= 0).sum())} candidates at position '
      f'{positions[row]}, fewer than candidates.k={cfg.k}: lower k, raise '
      'candidates.width, or turn candidates.exclude_seen off.'
    )
  rank = scores.find_positions(items, _targets(sources, split))
  processes.on_first(
    files.atomic_savez,
    sources.context.directory / f'{split}.npz',
    user=users,
    position=positions,
    candidates=items[:, : cfg.k],
    scores=values[:, : cfg.k],
    target=np.where(rank < cfg.k, rank, -1).astype(np.int32),
    rank=rank,
  )
  return rank


def _targets(sources: _Sources, split: str) -> np.ndarray:
  """Returns the true items of a split, int32 [N]."""
  dataset = sources.store.dataset
  users, positions = sources.store.splits.examples[split]
  return dataset.flat[dataset.offsets[users] + positions]


def _retrieve_lists(sources: _Sources) -> tuple[dict, np.ndarray]:
  """Writes the lists of all splits; returns the numbers, and test's items."""
  cfg = sources.cfg
  hit_rate, lists = {}, {}
  for split in splits_lib.NAMES:
    items, values = _retrieve(sources, cfg.source, split)
    rank = _write(sources, split, items, values)
    lists[split] = len(rank)
    if len(rank):
      hit_rate[split] = float((rank < cfg.k).mean())
  return {'hit_rate': hit_rate, 'lists': lists}, items


@runner.stage(
  'candidates',
  sections=('candidates', 'text'),
  inputs=('data', 'sid', 'midtrain'),
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Writes the lists of all splits and measures retrieval on the test split."""
  started = time.monotonic()
  cfg = config_lib.build(CandidatesConfig, config.candidates)
  store = artifacts.Artifacts(config, context.workdir)
  sources = _Sources(cfg, store, context)
  if cfg.source == SLATES:
    block = processes.on_first(slates.write, store, cfg.k, context.directory)
    block['retriever'] = cfg.retriever
    items = _retrieve(sources, cfg.retriever, 'test')[0]
  else:
    block, items = _retrieve_lists(sources)
  found = {cfg.retriever: items}
  for name in cfg.baselines:
    if name not in found:
      found[name] = _retrieve(sources, name, 'test')[0]
  targets = _targets(sources, 'test')
  summary = {
    'source': cfg.source,
    'k': cfg.k,
    **retrieval.measure(
      found, cfg.retriever, cfg.baselines, targets, store, context.seed
    ),
    **block,
  }
  seconds = time.monotonic() - started
  processes.on_first(retrieval.write_report, config, context, summary, seconds)
  processes.on_first(shutil.rmtree, context.directory / 'parts')
  return summary
