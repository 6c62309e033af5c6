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

from gr2_jax import progress, sharding
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import io
from gr2_jax.rank import evidence, heads
from gr2_jax.rl.rollout import Lists
from gr2_jax.stages import (
  artifacts,
  decoding,
  encoded,
  lineage,
  meshes,
  ranking,
  retrievers,
)


@dataclasses.dataclass(frozen=True)
class Ranker:
  """A model with all that it takes to write prompts and read answers.

  Attributes:
    config: shape of the model.
    params: {'lm', 'head'}, on `mesh`; 'head' is None of a model that ranks by
      lists only.
    mesh: the mesh.
    store: catalogue, semantic IDs, vocabulary and prompts of its run.
    answer: how answers are decoded.
    mode: one of `ranking.MODES`.
  """

  config: lm_config.LMConfig
  params: Any
  mesh: jax.sharding.Mesh
  store: artifacts.Artifacts
  answer: ranking.AnswerConfig
  mode: str = ranking.EXPLAINED

  @property
  def by_utilities(self) -> bool:
    """Whether candidates are ranked by utilities."""
    return self.params['head'] is not None and self.mode != ranking.LIST

  @functools.cached_property
  def evidence(self) -> evidence.Evidence:
    """What gives the columns of new lists."""
    return retrievers.make_evidence(self.store, self.mesh)

  def rank(
    self,
    histories: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    batch_size: int = 64,
    desc: str = 'rank',
    features: Sequence[np.ndarray] | None = None,
    scores: Sequence[np.ndarray | None] | None = None,
    columns: np.ndarray | None = None,
    shown: Sequence[np.ndarray] | None = None,
  ) -> list[ranking.Ranking]:
    """Re-ranks lists.

    Args:
      histories: item indices of each user, oldest first.
      candidates: item indices of each list in its incoming order, 2 to K; 2 or
        more in direct mode, whose prompts show no candidate.
      batch_size: lists decoded at a time; rounded up to fit the mesh.
      desc: what the progress bar says.
      features: float32 [k, E] of each list, the columns that it brings along.
      scores: float32 [k] of each list, the retriever's; where None the column
        says nothing of the list.
      columns: float32 [N, K, F], all evidence columns where they are known:
        `features` and `scores` are not read then.
      shown: the candidates of each list in the order in which prompts show
        them; the incoming one by default.

    Returns:
      One `Ranking` a list, in the order given.

    Raises:
      ValueError: as many histories, or what else there is one of a list, as
        lists are missing, a list that is too short or too long, or columns of
        the run that lists do not bring.
    """
    each = {'features': features, 'scores': scores, 'shown': shown}
    ranking.check(candidates, self._longest, histories=histories, **each)
    if not len(candidates):
      return []
    padded = self._padded(candidates)
    if columns is None:
      columns = self._columns(histories, padded, features, scores)
    shown = candidates if shown is None else shown
    asked = self._asked(histories, padded, columns, shown)
    size = self._size(batch_size, len(asked))
    # Similar lengths together: a batch is padded to its longest prompt.
    order = sorted(range(len(asked)), key=lambda i: len(asked.written[i]))
    rankings: dict[int, ranking.Ranking] = {}
    with progress.bar(total=len(asked), desc=desc, unit='list') as bar:
      for start in range(0, len(order), size):
        rows = order[start : start + size]
        found = self._answer(asked.batch(rows, size, self.store, self.mesh))
        for place, row in enumerate(rows):
          own = {name: values[place] for name, values in found.items()}
          length = len(asked.written[row])
          rankings[row] = ranking.read(self.store, candidates[row], own, length)
        bar.update(len(rows))
    return [rankings[i] for i in range(len(asked))]

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
    return encoded.encode(*given, histories, self._columns)

  def _asked(
    self,
    histories: Sequence[np.ndarray],
    padded: np.ndarray,
    columns: np.ndarray,
    shown: Sequence[np.ndarray],
  ) -> ranking.Asked:
    """Puts lists together with their prompts."""
    missing = padded.shape[1] - columns.shape[1]
    columns = np.pad(columns, [(0, 0), (0, missing), (0, 0)])
    written, direct = self._prompts(histories, shown), None
    if self.by_utilities and not self._unbounded:
      direct = [self.store.prompter.retrieval(x) for x in histories]
    return ranking.Asked(*written, padded, columns, direct)

  def _size(self, batch_size: int, lists: int) -> int:
    """Returns the lists of a batch, rounded up to fit the mesh."""
    parts = sharding.batch_parts(self.mesh)
    # A power of two below the batch size: few shapes, few compilations.
    size = min(batch_size, 1 << (lists - 1).bit_length())
    return -(-size // parts) * parts

  @property
  def _longest(self) -> int | None:
    """The most candidates of a list, or None."""
    return None if self._unbounded else self.store.prompter.cfg.max_candidates

  @property
  def _unbounded(self) -> bool:
    """Whether prompts show no candidate, so that lists have any length."""
    return self.by_utilities and self.mode == ranking.DIRECT

  def _padded(self, candidates: Sequence[np.ndarray]) -> np.ndarray:
    width = self.store.prompter.cfg.max_candidates
    longest = max(map(len, candidates))
    if longest > width:
      width = 1 << (longest - 1).bit_length()
    rows = np.full((len(candidates), width), -1, np.int32)
    for row, items in zip(rows, candidates, strict=True):
      row[: len(items)] = items
    return rows

  def _columns(
    self,
    histories: Sequence[np.ndarray],
    padded: np.ndarray,
    features: Sequence[np.ndarray] | None,
    scores: Sequence[np.ndarray | None] | None,
  ) -> np.ndarray:
    """Computes the evidence columns [N, K, F] of new lists."""
    if not self.by_utilities:
      return np.zeros((*padded.shape, 0), np.float32)
    names = self.store.user_columns
    if names and features is None:
      raise ValueError(
        f'The lists of this run bring the columns {list(names)}: give them as '
        '`features`.'
      )
    given = np.zeros(padded.shape, np.float32)
    for row, own in zip(given, scores or (), strict=False):
      if own is not None:
        row[: len(own)] = own
    extra = np.zeros((*padded.shape, len(names)), np.float32)
    for row, own in zip(extra, features or (), strict=False):
      row[: len(own)] = own
    return self.evidence.columns(histories, padded, given, extra)

  def _prompts(
    self, histories: Sequence[np.ndarray], shown: Sequence[np.ndarray]
  ) -> tuple[list[list[int]], np.ndarray]:
    """Returns the prompts, and int32 [N, M], what explanations may cite."""
    prompter = self.store.prompter
    if self._unbounded:
      written = [prompter.retrieval(history) for history in histories]
      # Nothing is written.
      return written, np.full((len(written), 1), -1, np.int32)
    pairs = list(zip(histories, shown, strict=True))
    return (
      [prompter.rerank(*pair) for pair in pairs],
      np.stack([prompter.citable(*pair) for pair in pairs]),
    )

  def _answer(self, lists: Lists) -> dict[str, np.ndarray]:
    """Answers a batch; see `decoding`."""
    model, fmt = self.config, self.store.vocab.answer_format()
    with sharding.use(self.mesh, sharding.DECODE_RULES):
      if not self.by_utilities:
        explained = self.mode != ranking.DIRECT
        found = decoding.write_list(
          model,
          fmt,
          self.params['lm'],
          lists,
          self.answer.max_new_tokens,
          self.answer.explanation_tokens if explained else 0,
          self.answer.constrain,
        )
      elif self._unbounded:
        found = decoding.rank(model, fmt, self.params, lists)
      else:
        found = decoding.explain(
          model, fmt, self.params, lists, self.answer.explanation_tokens
        )
    return sharding.fetch(self.mesh, found)


def load(
  workdir: pathlib.Path | str,
  stage: str = 'rl',
  mesh: jax.sharding.Mesh | None = None,
  mode: str = ranking.EXPLAINED,
) -> Ranker:
  """Loads the model of a finished run.

  Args:
    workdir: the run's directory.
    stage: whose model: 'sft' or 'rl'.
    mesh: where to; by default the mesh of the run's config.
    mode: how it answers, one of `ranking.MODES`.

  Returns:
    The ranker.

  Raises:
    FileNotFoundError: the run, or this stage of it, is not finished.
    ValueError: no such mode, stages that do not belong together, or no
      explanation is wanted of lists that are decoded without a constraint.
  """
  if mode not in ranking.MODES:
    raise ValueError(
      f'mode={mode!r} is unknown: choose one of {ranking.MODES}.'
    )
  workdir = pathlib.Path(workdir).expanduser().absolute()
  config = lineage.config(workdir, stage)
  if mesh is None:
    mesh = meshes.make(config)
  store = artifacts.Artifacts(config, workdir)
  directory = store.model(stage)
  shape, params = io.load(directory, mesh, sharding.DECODE_RULES)
  found = heads.load(directory)
  head = None if found is None else sharding.replicate(mesh, found[0])
  names = [field.name for field in dataclasses.fields(ranking.AnswerConfig)]
  answer = ranking.AnswerConfig(**{name: config.rl[name] for name in names})
  if head is None and mode == ranking.DIRECT and not answer.constrain:
    raise ValueError(
      'Answers without explanation need rl.constrain, which is False in this '
      'run: nothing else keeps the explanation empty.'
    )
  params = {'lm': params, 'head': head}
  return Ranker(shape, params, mesh, store, answer, mode)
