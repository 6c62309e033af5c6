"""What trained models answer to test lists: greedy, kept a chunk at a time."""

import dataclasses
import shutil
from collections.abc import Sequence

import numpy as np

from gr2_jax import files, processes
from gr2_jax.stages import artifacts, ranker, runner


@dataclasses.dataclass(frozen=True)
class Round:
  """Lists that one model answers in one way.

  Attributes:
    name: of the round: `answers_{name}.jsonl`.
    stage: whose model.
    lists: N lists; their candidates in the order in which prompts show them.
    histories: N arrays of item indices, oldest first.
    explain: whether answers begin with an explanation.
  """

  name: str
  stage: str
  lists: artifacts.Lists
  histories: Sequence[np.ndarray]
  explain: bool = True


def shuffle(lists: artifacts.Lists, seed: int) -> artifacts.Lists:
  """Puts the candidates of each list into a random order.

  Args:
    lists: N lists.
    seed: of the orders.

  Returns:
    The same lists; scores and grades move with their items, padding stays at
    the end.
  """
  keys = np.random.default_rng(seed).random(lists.candidates.shape)
  order = np.argsort(np.where(lists.candidates >= 0, keys, 2.0), axis=1)
  place = np.argsort(order, axis=1)
  target = np.take_along_axis(place, lists.target[:, None], axis=1)[:, 0]
  return dataclasses.replace(
    lists,
    candidates=np.take_along_axis(lists.candidates, order, axis=1),
    scores=np.take_along_axis(lists.scores, order, axis=1),
    grades=np.take_along_axis(lists.grades, order, axis=1),
    target=np.where(lists.target < 0, -1, target).astype(np.int32),
  )


def collect(
  asked: Round, context: runner.Context, batch_size: int, chunk: int
) -> list[dict]:
  """Decodes a round's answers; what is on disk is not decoded again.

  Args:
    asked: lists and model.
    context: of the evaluation.
    batch_size: lists decoded at a time.
    chunk: lists between two points at which an interrupted run resumes.

  Returns:
    One answer a list: `user`, `position`, `order` (items, best first),
    `explanation`, `valid`, `tokens` (its length).
  """
  path = context.directory / f'answers_{asked.name}.jsonl'
  if processes.on_first(path.exists):
    return list(files.read_jsonl(path))
  parts = context.directory / f'parts_{asked.name}'
  processes.on_first(parts.mkdir, exist_ok=True)
  model, answers = None, []
  for start in range(0, len(asked.lists), chunk):
    part = parts / f'{start:09d}.json'
    if not processes.on_first(part.exists):
      if model is None:
        model = ranker.load(
          context.workdir, asked.stage, context.mesh, asked.explain
        )
      rows = slice(start, start + chunk)
      rankings = model.rank(
        asked.histories[rows],
        [row[row >= 0] for row in asked.lists.candidates[rows]],
        batch_size,
        f'evaluate, {asked.name}',
      )
      keys = zip(
        asked.lists.user[rows], asked.lists.position[rows], strict=True
      )
      found = [
        {
          'user': int(user),
          'position': int(position),
          'order': ranking.order.tolist(),
          'explanation': ranking.explanation,
          'valid': ranking.valid,
          'tokens': ranking.tokens,
        }
        for (user, position), ranking in zip(keys, rankings, strict=True)
      ]
      processes.on_first(files.write_json, part, found)
    answers += files.read_json(part)
  processes.on_first(files.write_jsonl, path, answers)
  processes.on_first(shutil.rmtree, parts)
  return answers
