"""Ranking by utilities beside the list that is written token by token.

Both sides are ours, on random weights at the quickstart's sizes: explained
prompts of 288 tokens, direct ones of 128, explanations of 32, lists of ten.
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import heads
from gr2_jax.ranker import decoding
from gr2_jax.rl import prompt_set, ranking_trainer, rollout
from gr2_jax.rl.config import RLConfig
from gr2_jax.text import lengths
from launch.bench import contests, tasks

PROMPT, DIRECT, WORDS = 288, 128, 32
COLUMNS = 6
# Lists of a step: of the token list, and of rankings with and without words.
LISTED, RANKED, EXPLAINED = 64, 512, 32
# Of each step.
UPDATES = 16
DECODED = 64


def task(model: LMConfig, queries: int, prompt: int = PROMPT) -> tasks.Task:
  """Returns a task whose answers have words and a list.

  Args:
    model: shape of the decoder.
    queries: Q, lists.
    prompt: P, tokens of each prompt.
  """
  made = tasks.Task(model, prompt, queries=queries)
  new = lengths.answer(made.format.levels, made.candidates, WORDS)
  return dataclasses.replace(made, new=new)


def prompts(given: tasks.Task, direct: bool) -> prompt_set.PromptSet:
  """Returns the lists of a task with evidence columns.

  Args:
    given: the task.
    direct: whether its prompts are the direct ones; else these stand beside.
  """
  shape = given.queries, given.candidates
  rng = np.random.default_rng(3)
  history = dataclasses.replace(given, prompt=DIRECT).prompts().tolist()
  return prompt_set.PromptSet(
    prompts=given.prompts().tolist(),
    candidates=np.arange(len(given.sids())).reshape(shape),
    sids=given.sids(),
    target=given.targets(),
    pad=given.format.pad,
    buckets=(given.prompt,),
    features=rng.normal(size=(*shape, COLUMNS)).astype(np.float32),
    histories=None if direct else history,
  )


class Ours:
  """A ranker by utilities on random weights.

  Attributes:
    model: shape of the decoder.
    mesh: the mesh.
    params: {'lm', 'head'}.
  """

  def __init__(self, model: LMConfig):
    """Makes weights and a head."""
    self.model, self.mesh = model, sharding.make_mesh()
    lm = decoder.init(model, self.mesh, sharding.TRAIN_RULES, jax.random.key(0))
    head = jax.tree.map(
      np.ones_like, heads.shapes([f'column{i}' for i in range(COLUMNS)])
    )
    self.params = {'lm': lm, 'head': sharding.replicate(self.mesh, head)}

  def lists(self, queries: int, direct: bool) -> rollout.PromptBatch:
    """Returns lists on the mesh.

    Args:
      queries: how many.
      direct: without words.
    """
    made = task(self.model, queries, DIRECT if direct else PROMPT)
    batch = prompts(made, direct).batch(np.arange(queries))
    return sharding.shard_batch(self.mesh, batch)

  def stepping(self, direct: int, explained: int) -> Callable[[], None]:
    """Returns an RL step on a number of lists of each kind."""
    config = RLConfig(
      steps=1,
      lists_per_step=direct or UPDATES,
      explained_per_step=explained,
      explanation_tokens=WORDS,
      updates_per_rollout=UPDATES,
    )
    fmt = task(self.model, 1).format
    trainer = ranking_trainer.RankingTrainer(
      self.model, config, fmt, self.mesh, seed=0
    )
    batch = {}
    if direct:
      batch[heads.DIRECT] = self.lists(direct, direct=True)
    if explained:
      batch[heads.EXPLAINED] = self.lists(explained, direct=False)
    held = [trainer.start(self.params)]

    def step() -> None:
      # The trainer waits for its parameters.
      held[0], _ = trainer.step(held[0], batch)

    return step

  def answering(self, mode: str) -> Callable[[], None]:
    """Returns greedy answers to `DECODED` lists.

    Args:
      mode: 'direct', 'explained' or 'list'.
    """
    made = task(self.model, DECODED)
    fmt, lists = made.format, self.lists(DECODED, mode == 'direct')
    given = {
      'direct': lambda: decoding.rank(self.model, fmt, self.params, lists),
      'explained': lambda: decoding.explain(
        self.model, fmt, self.params, lists, WORDS
      ),
      'list': lambda: decoding.write_list(
        self.model,
        fmt,
        self.params['lm'],
        lists,
        max_new_tokens=made.new,
        explanation_tokens=WORDS,
        constrained=True,
      ),
    }[mode]

    def run() -> None:
      with sharding.use(self.mesh, sharding.DECODE_RULES):
        jax.block_until_ready(given())

    return run


def steps(size: str, model: LMConfig) -> Iterator[contests.Contest]:
  """RL steps on rankings beside one on lists that are written."""
  from launch.bench import rl

  ours = Ours(model)
  listed = rl.Ours(task(model, LISTED), ours.mesh, UPDATES)
  peer = f"answer.ranking='list', {LISTED} lists x 8 answers"
  for name, direct, explained, goal in (
    ('explained and direct lists', RANKED, EXPLAINED, 3.0),
    ('direct lists', RANKED, 0, 3.0),
    ('explained lists', 0, EXPLAINED, 1.0),
  ):
    yield contests.Contest(
      f'RL step by utilities, {size}, {direct} direct and {explained} '
      f'explained lists, {UPDATES} updates: {name}',
      peer, 'lists', direct + explained, ours=ours.stepping(direct, explained),
      theirs=listed.step, goal=goal, their_count=LISTED,
    )  # fmt: skip


def answers(size: str, model: LMConfig) -> Iterator[contests.Contest]:
  """Greedy answers by utilities beside written lists."""
  ours = Ours(model)
  written = ours.answering('list')
  for mode, goal in (('direct', 10.0), ('explained', 1.0)):
    yield contests.Contest(
      f're-ranking by utilities, {size}, {DECODED} lists, {mode}',
      "explained, answer.ranking='list'", 'lists', DECODED,
      ours=ours.answering(mode), theirs=written, goal=goal,
    )  # fmt: skip
