"""A trained model applied to new lists: greedy decoding in batches.

reranker = rerank.load('runs/quickstart')
rankings = reranker.rank(histories, candidates)
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import progress, sharding
from gr2_jax.decode import sampler
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import io
from gr2_jax.rl import parse
from gr2_jax.stages import artifacts, meshes
from gr2_jax.text import prompts

# Prompts are padded to a multiple of this: one compilation for similar inputs.
_BUCKET = 32


@dataclasses.dataclass(frozen=True)
class AnswerConfig:
  """How answers are decoded: the fields of the same names in `config.rl`.

  Attributes:
    max_new_tokens: the longest answer.
    explanation_tokens: budget of the explanation where `constrain` holds.
    constrain: whether the list can only be a permutation of the candidates.
  """

  max_new_tokens: int
  explanation_tokens: int
  constrain: bool


@dataclasses.dataclass(frozen=True)
class Ranking:
  """One re-ranked list.

  Attributes:
    order: int32 [k], item indices, best first; the incoming order if the answer
      is not valid.
    explanation: what the model wrote before the list.
    valid: whether the answer is a permutation of the candidates.
    tokens: length of the answer.
  """

  order: np.ndarray
  explanation: str
  valid: bool
  tokens: int


@dataclasses.dataclass(frozen=True)
class Ranker:
  """A model with all that it takes to write prompts and read answers.

  Attributes:
    config: shape of the model.
    params: its parameters, on `mesh`.
    mesh: the mesh.
    store: catalogue, semantic IDs, vocabulary and prompts of its run.
    answer: how answers are decoded.
  """

  config: lm_config.LMConfig
  params: Any
  mesh: jax.sharding.Mesh
  store: artifacts.Artifacts
  answer: AnswerConfig

  def rank(
    self,
    histories: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    batch_size: int = 64,
    desc: str = 'rank',
  ) -> list[Ranking]:
    """Re-ranks lists.

    Args:
      histories: item indices of each user, oldest first.
      candidates: item indices of each list in its incoming order, 2 to K.
      batch_size: lists decoded at a time; rounded up to fit the mesh.
      desc: what the progress bar says.

    Returns:
      One `Ranking` a list, in the order given.

    Raises:
      ValueError: as many histories as lists are missing, or a list that is too
        short or too long.
    """
    self._check(histories, candidates)
    written = [
      self.store.prompter.rerank(history, items)
      for history, items in zip(histories, candidates, strict=True)
    ]
    parts = sharding.batch_parts(self.mesh)
    # A power of two below the batch size: few shapes, few compilations.
    size = min(batch_size, 1 << max(len(written) - 1, 0).bit_length())
    size = -(-size // parts) * parts
    # Similar lengths together: a batch is padded to its longest prompt.
    order = sorted(range(len(written)), key=lambda i: len(written[i]))
    rankings: dict[int, Ranking] = {}
    with progress.bar(total=len(written), desc=desc, unit='list') as bar:
      for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = [written[i] for i in rows]
        lists = [np.asarray(candidates[i], np.int32) for i in rows]
        done = self._decode(batch, lists, size)
        rankings.update(zip(rows, done, strict=True))
        bar.update(len(rows))
    return [rankings[i] for i in range(len(written))]

  def direct(self) -> 'Ranker':
    """Returns the same model, answering with the list alone.

    Raises:
      ValueError: it decodes without the constraint, which alone can keep the
        explanation empty.
    """
    if not self.answer.constrain:
      raise ValueError(
        'Answers without explanation need rl.constrain, which is False in this '
        'run: nothing else keeps the explanation empty.'
      )
    answer = dataclasses.replace(self.answer, explanation_tokens=0)
    return dataclasses.replace(self, answer=answer)

  def _check(self, histories: Sequence, candidates: Sequence) -> None:
    if len(histories) != len(candidates):
      raise ValueError(
        f'{len(histories)} histories for {len(candidates)} lists; give one '
        'history a list.'
      )
    longest = self.store.prompter.cfg.max_candidates
    for number, items in enumerate(candidates):
      if not 2 <= len(items) <= longest:
        raise ValueError(
          f'List {number} has {len(items)} candidates; the model was trained '
          f'for 2 to {longest} (text.prompt.max_candidates).'
        )

  def _decode(
    self,
    batch: Sequence[list[int]],
    lists: Sequence[np.ndarray],
    size: int,
  ) -> list[Ranking]:
    fmt = self.store.vocab.answer_format()
    width = -(-max(map(len, batch)) // _BUCKET) * _BUCKET
    tokens, valid = prompts.batch(batch, width, fmt.pad)
    longest = self.store.prompter.cfg.max_candidates
    rows = np.full((len(lists), longest), -1, np.int32)
    for row, items in zip(rows, lists, strict=True):
      row[: len(items)] = items
    missing = size - len(batch)
    inputs = sharding.shard_batch(
      self.mesh,
      {
        'tokens': np.pad(tokens, [(0, missing), (0, 0)]),
        'valid': np.pad(valid, [(0, missing), (0, 0)]),
        'sids': np.pad(
          self.store.sids[np.maximum(rows, 0)], [(0, missing), (0, 0), (0, 0)]
        ),
        'real': np.pad(rows >= 0, [(0, missing), (0, 0)]),
      },
    )
    with sharding.use(self.mesh, sharding.DECODE_RULES):
      samples = sampler.sample(
        self.config,
        self.params,
        inputs['tokens'],
        inputs['valid'],
        jax.random.key(0),  # Unread: decoding is greedy.
        1,
        self.answer.max_new_tokens,
        jnp.float32(0.0),
        fmt,
        inputs['sids'],
        inputs['real'],
        self.answer.constrain,
        self.answer.explanation_tokens,
      )
      places, sound = parse.parse_ranking(
        samples.tokens[:, 0],
        inputs['sids'],
        fmt,
        samples.mask[:, 0],
        inputs['real'],
      )
    places, sound, tokens, mask = sharding.fetch(
      self.mesh, (places, sound, samples.tokens[:, 0], samples.mask[:, 0])
    )
    return [
      self._ranking(lists[i], places[i], bool(sound[i]), tokens[i][mask[i]])
      for i in range(len(lists))
    ]

  def _ranking(
    self, items: np.ndarray, places: np.ndarray, sound: bool, tokens: np.ndarray
  ) -> Ranking:
    fmt = self.store.vocab.answer_format()
    order = items
    if sound:
      order = items[np.argsort(places[: len(items)], kind='stable')]
    text = tokens.tolist()
    end = text.index(fmt.mid) if fmt.mid in text else len(text)
    start = 1 if text[:1] == [fmt.open] else 0
    explanation = self.store.vocab.decode(text[start:end]).strip()
    return Ranking(order, explanation, sound, len(text))


def load(
  workdir: pathlib.Path | str,
  stage: str = 'rl',
  mesh: jax.sharding.Mesh | None = None,
  explain: bool = True,
) -> Ranker:
  """Loads the model of a finished run.

  Args:
    workdir: the run's directory.
    stage: whose model: 'sft' or 'rl'.
    mesh: where to; by default the mesh of the run's config.
    explain: whether answers begin with an explanation; see `Ranker.direct`.

  Returns:
    The ranker.

  Raises:
    FileNotFoundError: the run, or this stage of it, is not finished.
    ValueError: no explanation is wanted, but decoding has no constraint.
  """
  workdir = pathlib.Path(workdir).absolute()
  if not (workdir / 'config.json').exists():
    raise FileNotFoundError(
      f'No run in {workdir} (config.json is missing): give the --workdir of '
      'launch.pipeline.'
    )
  config = config_lib.load(workdir / 'config.json')
  if mesh is None:
    mesh = meshes.make(config)
  store = artifacts.Artifacts(config, workdir)
  shape, params = io.load(store.model(stage), mesh, sharding.DECODE_RULES)
  names = [field.name for field in dataclasses.fields(AnswerConfig)]
  answer = AnswerConfig(**{name: config.rl[name] for name in names})
  ranker = Ranker(shape, params, mesh, store, answer)
  return ranker if explain else ranker.direct()
