"""A trained model applied to new lists, in batches.

reranker = rerank.load('runs/quickstart')
rankings = reranker.rank(histories, candidates)
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gr2_jax import progress as progress_lib
from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import foreign, io
from gr2_jax.rank import evidence, heads
from gr2_jax.ranker import asking, decoding, encoded, new_items, ranking
from gr2_jax.rl.rollout import PromptBatch
from gr2_jax.run import artifacts, meshes
from gr2_jax.stages import retrievers
from gr2_jax.text import answer

# Stages that leave a model which ranks.
MODELS = ('sft', 'rl', 'direct')


@dataclasses.dataclass(frozen=True)
class Ranker:
  """A model with all that it takes to write prompts and read answers.

  Attributes:
    config: shape of the model.
    params: {'lm', 'head'}, on `mesh`; 'head' is None where lists are written.
    mesh: the mesh.
    store: catalogue, semantic IDs, vocabulary and prompts of its run.
    answer: how answers are decoded.
    mode: one of `ranking.MODES`.
    progress: whether many lists have a progress bar.
    known: what gives the columns of new lists; None to make it when needed.
  """

  config: lm_config.LMConfig
  params: Any
  mesh: jax.sharding.Mesh
  store: artifacts.Artifacts
  answer: ranking.AnswerConfig
  mode: str = ranking.EXPLAINED
  progress: bool = True
  known: evidence.Evidence | None = None

  @property
  def by_utilities(self) -> bool:
    """Whether candidates are ranked by utilities."""
    return self.params['head'] is not None and self.mode != ranking.LIST

  @functools.cached_property
  def evidence(self) -> evidence.Evidence:
    """What gives the columns of new lists."""
    given = self.store, self.mesh
    return self.known or retrievers.make_evidence(*given)

  @functools.cached_property
  def tokenizer(self) -> new_items.Tokenizer:
    """What gives new items semantic IDs."""
    return new_items.load(self.store.workdir, self.mesh)

  @functools.cached_property
  def asking(self) -> asking.Asking:
    """What writes the prompts."""
    return asking.Asking(self.store, self.mesh, self.mode, self.by_utilities)

  @functools.cached_property
  def _format(self) -> answer.AnswerFormat:
    return self.store.vocab.answer_format()

  def rank(
    self,
    histories: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    batch_size: int = 64,
    *,
    desc: str = 'rank',
    features: Sequence[np.ndarray] | None = None,
    scores: Sequence[np.ndarray | None] | None = None,
    columns: np.ndarray | None = None,
    shown: Sequence[np.ndarray] | None = None,
  ) -> list[ranking.Ranking]:
    """Re-ranks lists.

    Args:
      histories: item indices of each user, oldest first.
      candidates: item indices of each list in its incoming order, 1 to K; 1 or
        more in direct mode, whose prompts show no candidate.
      batch_size: lists decoded at a time; rounded down to a power of two.
      desc: what the progress bar says.
      features: float32 [k, E] of each list, the columns that it carries.
      scores: float32 [k] of each list, the retriever's, or None.
      columns: float32 [N, K, F], in the place of both where they are known.
      shown: the candidates of each list in the order that prompts show.

    Returns:
      One `Ranking` a list, in the order given.

    Raises:
      ValueError: another number of something than of lists, a list that is
        empty or too long, or one without the columns of the run.
    """
    each = {'features': features, 'scores': scores, 'shown': shown}
    ranking.check(candidates, self.asking.longest, histories=histories, **each)
    if not len(candidates):
      return []
    padded = self.asking.padded(candidates)
    shown = candidates if shown is None else shown
    asked = self.asking.asked(histories, padded, shown)
    size = padding.batch_size(self.mesh, len(asked), batch_size)
    take = lambda x, rows: None if x is None else [x[row] for row in rows]
    # Similar lengths together: a batch is padded to its longest prompt.
    lengths = [len(written) for written in asked.written]
    rankings: dict[int, ranking.Ranking] = {}
    hidden = progress_lib.hidden(not self.progress or len(asked) <= size)
    steps = {'total': len(asked), 'unit': 'list', 'compiles': True}
    with hidden, progress_lib.bar(desc=desc, **steps) as bar:
      for chosen in padding.by_length(lengths, size):
        rows = chosen.tolist()
        own = self._columns(
          take(histories, rows), padded[rows], take(features, rows),
          take(scores, rows), None if columns is None else columns[rows],
        )  # fmt: skip
        batch = asked.batch(rows, own, size, self.store, self.mesh)
        found = self._answer(batch)
        for place, row in enumerate(rows):
          one = {name: values[place] for name, values in found.items()}
          rankings[row] = self._read(asked, row, candidates[row], one)
        bar.update(len(rows))
    return [rankings[i] for i in range(len(asked))]

  def _read(
    self,
    asked: ranking.Asked,
    row: int,
    items: np.ndarray,
    found: dict[str, np.ndarray],
  ) -> ranking.Ranking:
    """Reads the answer to one of the lists."""
    prompt = len(asked.written[row]), asked.citable[row]
    return ranking.read(self.store, items, found, *prompt)

  def warm_up(
    self, batch_size: int = 64, longest: int = 0, encode: bool = False
  ) -> None:
    """Compiles all programs that `rank` needs, so that no list waits for one.

    Args:
      batch_size: the largest that `rank` will be called with.
      longest: in direct mode, the most candidates of a list; below the run's
        `text.prompt.max_candidates`, that many.
      encode: whether `encode` and its `score` will be called, too.
    """
    largest = padding.batch_size(self.mesh, batch_size, batch_size)
    fewer = [1 << n for n in range(longest.bit_length())]
    counts = {self.asking.width(count) for count in (*fewer, longest)}
    powers = {min(1 << n, largest) for n in range(largest.bit_length() + 1)}
    names = self.evidence.names if self.by_utilities else ()
    for rows in sorted(powers):
      size = padding.batch_size(self.mesh, rows, batch_size)
      for count in sorted(counts):
        # SASRec reads the lists whose history is not empty.
        nobody = np.full((rows, count), -1, np.int32)
        extra = [np.zeros((0, len(self.store.user_columns)), np.float32)] * rows
        for length in self.evidence.lengths if names else ():
          read = [np.zeros(length, np.int32)] * rows
          self._columns(read, nobody, extra, [None] * rows, None)
        for width in padding.widths(self.asking.longest_prompts[0]):
          self._answer(self.asking.empty(size, count, width, len(names)))
    if encode:
      encoded.warm_up(self.encode, self.store, powers, counts)

  def encode(self, histories: Sequence[np.ndarray]) -> encoded.Encoded:
    """Reads histories once, for any number of lists; see `encoded`.

    Args:
      histories: item indices of each user, oldest first; one or more.

    Raises:
      ValueError: a model that ranks by lists only.
    """
    if not self.by_utilities:
      raise ValueError(
        "This model writes lists (answer.ranking='list'): it has no utilities "
        'to score candidates by. Use `rank`.'
      )
    given = self.config, self.params, self.mesh, self.store
    return encoded.encode(
      *given, histories, padded=self.asking.padded, columns=self._columns
    )

  def _columns(
    self,
    histories: Sequence[np.ndarray],
    padded: np.ndarray,
    features: Sequence[np.ndarray] | None = None,
    scores: Sequence[np.ndarray | None] | None = None,
    columns: np.ndarray | None = None,
  ) -> np.ndarray:
    """Returns the evidence columns of lists, float32 [n, K, F]."""
    if columns is not None:
      missing = padded.shape[1] - columns.shape[1]
      return np.float32(np.pad(columns, [(0, 0), (0, missing), (0, 0)]))
    if not self.by_utilities:
      return np.zeros((*padded.shape, 0), np.float32)
    numbers = self.asking.numbers(padded, features, scores)
    return self.evidence.columns(histories, padded, *numbers)

  def _answer(self, lists: PromptBatch) -> dict[str, np.ndarray]:
    """Answers a batch; see `decoding`."""
    model, fmt = self.config, self._format
    with sharding.use(self.mesh, sharding.DECODE_RULES):
      if not self.by_utilities:
        found = decoding.write_list(
          model,
          fmt,
          self.params['lm'],
          lists,
          max_new_tokens=self.answer.max_new_tokens,
          explanation_tokens=0
          if self.mode == ranking.DIRECT
          else self.answer.explanation_tokens,
          constrained=self.answer.constrain,
        )
      elif self.asking.unbounded:
        found = decoding.rank(model, fmt, self.params, lists)
      else:
        found = decoding.explain(
          model, fmt, self.params, lists, self.answer.explanation_tokens
        )
    return sharding.fetch(self.mesh, found)


def load(
  workdir: pathlib.Path | str,
  model: str = 'rl',
  mesh: jax.sharding.Mesh | None = None,
  mode: str | None = None,
  progress: bool = True,
) -> Ranker:
  """Loads a model of a finished run.

  Args:
    workdir: the run's directory.
    model: which one, of `MODELS`.
    mesh: where to; by default the mesh of the run's config.
    mode: how it answers, one of `ranking.MODES`; by default 'direct' of the
      model of that name, else 'explained'.
    progress: whether many lists have a progress bar.

  Returns:
    The ranker.

  Raises:
    FileNotFoundError: no run, or this model is not there or not finished.
    ValueError: no such model or mode, stages of several runs, or no explanation
      is wanted of lists that are decoded without a constraint.
  """
  if mode is None:
    mode = ranking.DIRECT if model == 'direct' else ranking.EXPLAINED
  for name, value, known in (
    ('model', model, MODELS),
    ('mode', mode, ranking.MODES),
  ):
    if value not in known:
      raise ValueError(f'{name}={value!r} is unknown: choose one of {known}.')
  workdir = pathlib.Path(workdir).expanduser().absolute()
  there = [name for name in MODELS if (workdir / name / 'model').exists()]
  if there and model not in there:
    raise FileNotFoundError(
      f'{workdir} has no model {model!r}: of {MODELS} the run has {there}. '
      f'Choose one of these, or run the stage {model!r} first.'
    )
  store = artifacts.open_run(workdir, model)
  if mesh is None:
    mesh = meshes.make(store.config)
  directory = store.model(model)
  shape, params = io.load_for_decoding(directory, mesh)
  foreign.check_rows(directory, store.vocab.size, shape.vocab_size)
  found = heads.load(directory)
  head = None if found is None else sharding.replicate(mesh, found[0])
  names = [x.name for x in dataclasses.fields(ranking.AnswerConfig)]
  given = ranking.AnswerConfig(**{x: store.config.rl[x] for x in names})
  if head is None and mode == ranking.DIRECT and not given.constrain:
    raise ValueError(
      'Answers without explanation need rl.constrain, which is False in this '
      'run: nothing else keeps the explanation empty.'
    )
  params = {'lm': params, 'head': head}
  return Ranker(
    shape, params, mesh, store, answer=given, mode=mode, progress=progress
  )
