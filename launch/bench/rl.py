"""A whole RL step beside TRL's, and its reward beside one in Python.

Random weights of the 10 M model; 8 prompts, 8 answers to each, two updates.
Ours decodes under the constraint, as in training, with an explanation that
fills 64 tokens (random weights end one in a thousand earlier): each answer is
valid, so that each group has variance and all are trained on. TRL's answers are
free and as long; `trl_trainer.judge` says how they get rewards that differ.
Ours takes the old log-probs from the sampler, TRL computes them.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import sharding
from gr2_jax.decode import sampler
from gr2_jax.lm import decoder
from gr2_jax.rl import groups, rollout, trainer
from gr2_jax.rl.config import RLConfig
from gr2_jax.rl.prompt_set import PromptSet
from gr2_jax.train import metrics as metrics_lib
from launch.bench import contests, ranking, tasks
from launch.bench.peers import string_reward, trl_process

SIZE = '10M'
# The ratios that we want, by the length of the prompts.
PROMPTS = {256: 5.0, 1024: 8.0}
# So that a call takes tenths of a second, not milliseconds.
REWARDS = 100


def parts() -> dict[str, Callable[[], Iterator[contests.Contest]]]:
  """Returns the parts of this group."""
  found = {f'step {p}': functools.partial(_step, p) for p in PROMPTS}
  return {**found, 'reward': _reward, 'utilities': _utilities}


def task(prompt: int) -> tasks.Task:
  """Returns the step with prompts of a number of tokens."""
  return tasks.Task(tasks.SIZES[SIZE], prompt)


class Rewarded(NamedTuple):
  """Rewards, advantages, validity [Q, G]; 1 for groups to train on [Q]."""

  rewards: jax.Array
  advantages: jax.Array
  valid: jax.Array
  weight: jax.Array
  buffer: groups.Groups | None


class Ours:
  """Our RL step on a task.

  Attributes:
    lists: of the step, on the mesh.
    seconds: of each step made so far, by part.
  """

  def __init__(
    self, task: tasks.Task, mesh: jax.sharding.Mesh, updates: int = 2
  ):
    """Makes random weights and the trainer.

    Args:
      task: what a step is made on.
      mesh: the mesh.
      updates: of each step.
    """
    self._task, self._mesh = task, mesh
    self.config = RLConfig(
      steps=1,
      max_new_tokens=task.new,
      explanation_tokens=task.explanation,
      prompts_per_step=task.queries,
      group_size=task.group,
      max_rounds=1,
      updates_per_rollout=updates,
      lr=1e-6,
      credit='answer',
      alpha=0.2,  # As in `string_reward`, like the next.
      invalid=-1.0,
    )
    prompts = PromptSet(
      prompts=task.prompts().tolist(),
      candidates=np.arange(len(task.sids())).reshape(task.queries, -1),
      sids=task.sids(),
      target=task.targets(),
      pad=task.format.pad,
      buckets=(task.prompt,),
    )
    self.lists = sharding.shard_batch(
      self._mesh, prompts.batch(np.arange(task.queries))
    )
    self._trainer = trainer.Trainer(
      task.model, self.config, task.format, prompts, mesh=self._mesh, seed=0
    )
    self._params = decoder.init(
      task.model, self._mesh, sharding.TRAIN_RULES, jax.random.key(0)
    )
    self._state = self._trainer.start(self._params)
    self.seconds = []

  def step(self) -> None:
    """Makes a step; raises where a group was not trained on."""
    started = time.perf_counter()
    self._state, pairs = self._trainer.step(self._state, (self.lists,))
    whole = time.perf_counter() - started
    found = metrics_lib.means(jax.device_get(pairs))
    if found['fill_rate'] < 1:
      raise RuntimeError(
        f'A step trained on {found["fill_rate"]:.0%} of its groups: the '
        'others have no variance. Measure it with other lists.'
      )
    rollout, update = (
      found[f'timing/{part}_seconds'] for part in ('rollout', 'update')
    )
    rest = whole - rollout - update
    self.seconds.append({'rollout': rollout, 'update': update, 'rest': rest})

  def samples(self) -> sampler.Samples:
    """Samples the answers that `reward` is measured on."""
    task, lists = self._task, self.lists
    with sharding.use(self._mesh, sharding.DECODE_RULES):
      return sampler.sample(
        task.model, self._params, lists.prompt, lists.prompt_valid,
        jax.random.key(0), num_samples=task.group, max_new_tokens=task.new,
        temperature=jnp.float32(1), fmt=task.format,
        items=lists.items, constrain=True,
        explanation_tokens=task.explanation,
      )  # fmt: skip

  def reward(
    self, samples: sampler.Samples, stored: bool = False
  ) -> Callable[[int], Rewarded]:
    """Returns parsing, rewards, advantages and filter, done a number of times.

    Args:
      samples: answers to all lists.
      stored: also put what is trained on into the buffer, which TRL has not.
    """

    # What a step's program passes on is not copied there, nor here.
    @jax.jit
    def run(lists, samples):
      found = rollout.reward(self.config, self._task.format, lists, samples)
      new, buffer = found.groups, None
      if stored:
        empty = jax.tree.map(jnp.zeros_like, self._state.buffer)
        buffer = groups.fill(empty, new)
      return Rewarded(
        found.rewards, new.advantages, found.valid, new.weight, buffer
      )

    def repeated(times: int) -> Rewarded:
      with sharding.use(self._mesh, sharding.DECODE_RULES):
        for _ in range(times):
          found = jax.block_until_ready(run(self.lists, samples))
      return found

    return repeated


def _step(prompt: int) -> Iterator[contests.Contest]:
  """A whole step; the reward is timed apart, and taken from the rollout."""
  way, peer = trl_process.fastest(task(prompt), _ways(prompt))
  ours = Ours(task(prompt), sharding.make_mesh())
  reward = ours.reward(ours.samples(), stored=True)
  reward(1)

  def split(turns: int) -> dict[str, dict[str, float]]:
    mine = _medians(ours.seconds[-turns:])
    passes = functools.partial(reward, REWARDS)
    mine['reward'] = contests.seconds(passes) / REWARDS
    mine['rollout'] -= mine['reward']
    mine['log-probs'] = 0.0
    sides = {'ours': mine, 'theirs': _medians(peer.seconds[-turns:])}
    return {
      side: {k: s[k] for k in trl_process.PARTS} for side, s in sides.items()
    }

  yield contests.Contest(
    f'RL step, {SIZE}, 8 prompts of {prompt} x 8 x 64, 2 updates',
    f'TRL GRPOTrainer (dapo), {way}', 'steps', 1,
    ours=ours.step, theirs=peer.step, goal=PROMPTS[prompt], split=split,
  )  # fmt: skip
  peer.close()


def _utilities() -> Iterator[contests.Contest]:
  """Steps on rankings at the quickstart's size."""
  return ranking.steps('2M', tasks.SIZES['2M'])


def _ways(prompt: int) -> tuple[str, ...]:
  """Returns what TRL may use; a try with long prompts takes a minute.

  Without bfloat16 units a step in bfloat16 takes five times as long as one in
  float32, or more.
  """
  ways = trl_process.WAYS
  if not contests.multiplies_bf16():
    return ways[:1]
  return ways if prompt == min(PROMPTS) else ways[1:]


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
  return {k: statistics.median(row[k] for row in rows) for k in rows[0]}


def _reward() -> Iterator[contests.Contest]:
  """From token ids to groups to train on, for 64 answers."""
  of = task(256)
  ours = Ours(of, sharding.make_mesh())
  samples = ours.samples()
  reward, theirs = ours.reward(samples), InPython(of, samples)
  rows = of.queries * of.group
  name = f'parsing, reward, advantage and filter, {rows} answers, K = 10'
  passes = functools.partial(reward, REWARDS)

  def repeated(run):
    for _ in range(REWARDS):
      run()

  for peer, run in (
    ('Python on decoded strings', theirs.judge),
    ('Python on strings, and decoding them', theirs.decode_and_judge),
  ):
    yield contests.Contest(
      name, peer, 'answers', REWARDS * rows, ours=passes,
      theirs=functools.partial(repeated, run), goal=10.0,
    )  # fmt: skip
  # At most a hundredth of a step.
  stored = ours.reward(samples, stored=True)
  yield contests.Contest(
    f'{name}, and the buffer', 'the whole RL step', 'steps', 1,
    ours=functools.partial(stored, 1), theirs=ours.step, goal=100.0,
  )  # fmt: skip


class InPython:
  """What `Ours.reward` does, as users of other trainers do it."""

  def __init__(self, task: tasks.Task, samples: sampler.Samples):
    """Decodes the answers.

    Args:
      task: whose lists.
      samples: answers to all of them.
    """
    self._group = task.group
    rows = np.asarray(samples.tokens).reshape(-1, task.new)
    self._ids = rows.tolist()
    self._tokenizer = tasks.tokenizer(task)
    self._lists = [row for row in task.lists() for _ in range(task.group)]
    self._targets = np.repeat(task.targets(), task.group).tolist()
    self.texts = self._decode()

  def _decode(self) -> list[str]:
    # What TRL's tokenizers do with a batch.
    return self._tokenizer.decode_batch(self._ids)

  def judge(self) -> tuple[list[float], list[float], list[bool]]:
    """Returns rewards, advantages and which groups have variance."""
    found = string_reward.rewards(self.texts, self._lists, self._targets)
    advantages = string_reward.advantages(found, self._group)
    return found, advantages, string_reward.has_variance(found, self._group)

  def decode_and_judge(self) -> None:
    """Decodes the answers again before."""
    self.texts = self._decode()
    self.judge()
