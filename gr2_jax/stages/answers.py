"""What trained models answer to test lists: greedy, kept a chunk at a time."""

import dataclasses
import itertools
import shutil
from collections.abc import Sequence

import numpy as np

from gr2_jax import files, processes
from gr2_jax.ranker import ranker, ranking
from gr2_jax.run import artifacts, runner


@dataclasses.dataclass(frozen=True)
class AnswerTask:
  """Lists that one model answers in one way.

  Attributes:
    name: of the task: `answers_{name}.jsonl`.
    stage: whose model.
    lists: N lists, in their incoming order.
    histories: N arrays of item indices, oldest first.
    mode: how it answers; see `ranking.MODES`.
    shown: int32 [N, K], the candidates in the order in which prompts show them;
      None for the incoming one.
  """

  name: str
  stage: str
  lists: artifacts.CandidateLists
  histories: Sequence[np.ndarray]
  mode: str = ranking.EXPLAINED
  shown: np.ndarray | None = None


def shuffle(candidates: np.ndarray, seed: int) -> np.ndarray:
  """Puts the candidates of each list into a random order.

  Args:
    candidates: int32 [N, K], -1 pads at the end.
    seed: of the orders.

  Returns:
    int32 [N, K]; padding stays at the end.
  """
  keys = np.random.default_rng(seed).random(candidates.shape)
  order = np.argsort(np.where(candidates >= 0, keys, 2.0), axis=1)
  return np.take_along_axis(candidates, order, axis=1)


def collect(
  asked: AnswerTask, context: runner.Context, batch_size: int, chunk: int
) -> list[dict]:
  """Decodes a task's answers; what is on disk is not decoded again.

  Args:
    asked: lists and model.
    context: of the evaluation.
    batch_size: lists decoded at a time.
    chunk: at most so many lists between two points at which an interrupted
      run resumes.

  Returns:
    One answer a list: `user`, `position`, `order` (items, best first), `alone`
    (the order by likelihood and incoming order alone, or None), `explanation`,
    `valid`, `tokens` (its length), `prompt_tokens`.
  """
  path = context.directory / f'answers_{asked.name}.jsonl'
  if processes.on_first(path.exists):
    return list(files.read_jsonl(path))
  parts = context.directory / f'parts_{asked.name}'
  processes.on_first(parts.mkdir, exist_ok=True)
  model, answers = None, []
  # Equal parts: a short last one would have batches of another shape.
  count = -(-len(asked.lists) // chunk)
  bounds = np.linspace(0, len(asked.lists), count + 1).astype(int)
  for start, end in itertools.pairwise(bounds):
    part = parts / f'{start:09d}.json'
    if not processes.on_first(part.exists):
      if model is None:
        model = ranker.load(
          context.workdir, asked.stage, context.mesh, asked.mode
        )
      found = _answer(model, asked, slice(start, end), batch_size)
      processes.on_first(files.write_json, part, found)
    answers += files.read_json(part)
  processes.on_first(files.write_jsonl, path, answers)
  processes.on_first(shutil.rmtree, parts)
  return answers


def _answer(
  model: ranker.Ranker, asked: AnswerTask, rows: slice, batch_size: int
) -> list[dict]:
  """Answers some of a task's lists."""
  lists = asked.lists.take(np.arange(len(asked.lists))[rows])
  real = lambda values: [row[row >= 0] for row in values]
  shown = None if asked.shown is None else real(asked.shown[rows])
  rankings = model.rank(
    asked.histories[rows],
    real(lists.candidates),
    batch_size,
    desc=f'evaluate, {asked.name}',
    columns=lists.features,
    shown=shown,
  )
  return [
    {
      'user': int(user),
      'position': int(position),
      'order': ranking.order.tolist(),
      'alone': None if ranking.alone is None else ranking.alone.tolist(),
      'explanation': ranking.explanation,
      'valid': ranking.valid,
      'tokens': ranking.tokens,
      'prompt_tokens': ranking.prompt_tokens,
    }
    for user, position, ranking in zip(
      lists.user, lists.position, rankings, strict=True
    )
  ]
