"""A whole RL step beside TRL's, and its reward beside one in Python.

Random weights of the 10 M model; 8 prompts, 8 answers to each, two updates.
Ours decodes under the constraint, as in training, with an explanation that
fills 64 tokens (random weights end one in a thousand earlier): each answer is
valid, so that each group has variance and all are trained on. TRL's answers are
free and as long; `bench_trl.judge` says how they get rewards that differ. Ours
takes the old log-probs from the sampler, TRL computes them.
"""

import functools
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

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
from launch import bench_contest, bench_lists, bench_reward

SIZE = '10M'
PROMPTS = {256: 5.0, 1024: 8.0}  # The ratios that we want.
WAYS = ('float32', 'autocast to bfloat16', 'bfloat16')
PARTS = ('rollout', 'reward', 'log-probs', 'update', 'rest')
# So that a call takes tenths of a second, not milliseconds.
REWARDS = 100


def parts() -> dict[str, Callable[[], Iterator[bench_contest.Contest]]]:
  """Returns the parts of this group."""
  found = {f'step {p}': functools.partial(_step, p) for p in PROMPTS}
  return {**found, 'reward': _reward}


def task(prompt: int) -> bench_lists.Task:
  """Returns the step with prompts of so many tokens."""
  # It imports PyTorch, which the tests of this module do without.
  from launch import bench_lm

  return bench_lists.Task(bench_lm.SIZES[SIZE], prompt)


class Ours:
  """Our RL step on a task.

  Attributes:
    lists: of the step, on the mesh.
    seconds: of each step made so far, by part.
  """

  def __init__(self, task: bench_lists.Task, mesh: jax.sharding.Mesh):
    """Makes random weights and the trainer."""
    self._task, self._mesh = task, mesh
    self.config = RLConfig(
      steps=1,
      max_new_tokens=task.new,
      explanation_tokens=task.explanation,
      prompts_per_step=task.queries,
      group_size=task.group,
      max_rounds=1,
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
      task.model, self.config, task.format, prompts, self._mesh, seed=0
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
    rollout, update = found['rollout_seconds'], found['update_seconds']
    rest = whole - rollout - update
    self.seconds.append({'rollout': rollout, 'update': update, 'rest': rest})

  def samples(self) -> sampler.Samples:
    """Samples the answers that `reward` is measured on."""
    task, lists = self._task, self.lists
    with sharding.use(self._mesh, sharding.DECODE_RULES):
      return sampler.sample(
        task.model, self._params, lists.prompt, lists.prompt_valid,
        jax.random.key(0), task.group, task.new, jnp.float32(1), task.format,
        lists.candidate_sids, lists.candidate_mask, True, task.explanation,
      )  # fmt: skip

  def reward(
    self, samples: sampler.Samples
  ) -> Callable[[], tuple[rollout.Rollouts, groups.Groups]]:
    """Returns parsing, rewards, advantages and filter as a program.

    Args:
      samples: answers to all lists.
    """

    @jax.jit
    def run(lists, samples):
      found = rollout.reward(self.config, self._task.format, lists, samples)
      buffer = groups.empty(found.groups, self._task.prompt)
      return found, groups.fill(buffer, found.groups)

    def on_mesh():
      with sharding.use(self._mesh, sharding.DECODE_RULES):
        return jax.block_until_ready(run(self.lists, samples))

    return on_mesh


class Peer:
  """A process of `bench_trl`.

  Attributes:
    seconds: of each step made so far, by part.
  """

  def __init__(self):
    """Starts it; it ends with this process, whose pipe it reads."""
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'launch.bench_trl'],
      cwd=pathlib.Path(__file__).resolve().parent.parent,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.seconds = []

  def step(self, task: bench_lists.Task, way: str) -> None:
    """Makes a step in a way of `WAYS`; raises where the process ends."""
    request = {'task': bench_lists.dump(task), 'way': way}
    print(json.dumps(request), file=self._process.stdin, flush=True)
    line = self._process.stdout.readline()
    if not line:
      self.close()
      raise RuntimeError(
        f'TRL ended with {self._process.returncode}: its messages are above.'
      )
    self.seconds.append(json.loads(line))

  def close(self) -> None:
    """Ends it."""
    self._process.communicate()


def _step(prompt: int) -> Iterator[bench_contest.Contest]:
  """A whole step; the reward is timed apart, and taken from the rollout."""
  from launch import bench_torch

  ours, peer = Ours(task(prompt), sharding.make_mesh()), Peer()
  reward = ours.reward(ours.samples())
  way, theirs = bench_torch.fastest(
    {way: functools.partial(peer.step, task(prompt), way) for way in WAYS}
  )

  def split(turns: int) -> dict[str, dict[str, float]]:
    mine = _medians(ours.seconds[-turns:])
    mine['reward'] = bench_contest.seconds(_times(REWARDS, reward)) / REWARDS
    mine['rollout'] -= mine['reward']
    mine['log-probs'] = 0.0
    sides = {'ours': mine, 'theirs': _medians(peer.seconds[-turns:])}
    return {side: {k: s[k] for k in PARTS} for side, s in sides.items()}

  yield bench_contest.Contest(
    f'RL step, {SIZE}, 8 prompts of {prompt} x 8 x 64, 2 updates',
    f'TRL GRPOTrainer (dapo), {way}', 'steps', 1, ours.step, theirs,
    PROMPTS[prompt], split,
  )  # fmt: skip
  peer.close()


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
  return {k: statistics.median(row[k] for row in rows) for k in rows[0]}


def _times(count: int, run: Callable[[], object]) -> Callable[[], None]:
  def repeated():
    for _ in range(count):
      run()

  return repeated


def _reward() -> Iterator[bench_contest.Contest]:
  """Parsing, rewards, advantages and filter of 64 answers."""
  of = task(256)
  ours = Ours(of, sharding.make_mesh())
  samples = ours.samples()
  reward = ours.reward(samples)
  texts = decoded(of, samples)
  rows = of.queries * of.group
  yield bench_contest.Contest(
    f'reward, parsing, filter and advantage, {rows} answers of K = 10',
    'Python, decoded strings', 'answers', REWARDS * rows,
    _times(REWARDS, reward), _times(REWARDS, in_python(of, texts)), 10.0,
  )  # fmt: skip
  # The share of a step: at most a hundredth.
  yield bench_contest.Contest(
    f'reward, parsing, filter and advantage, {rows} answers of K = 10',
    'the whole RL step', 'steps', 1, reward, ours.step, 100.0,
  )  # fmt: skip


def decoded(task: bench_lists.Task, samples: sampler.Samples) -> list[str]:
  """Returns the text of each answer, without its end."""
  words = task.words()
  words[task.format.eos] = words[task.format.pad] = ''
  rows = np.asarray(samples.tokens).reshape(-1, task.new)
  return [''.join(words[i] for i in row) for row in rows]


def in_python(
  task: bench_lists.Task, texts: list[str]
) -> Callable[[], tuple[list[float], list[float], list[bool]]]:
  """Returns what `Ours.reward` does, on strings: see `bench_reward`.

  Args:
    task: whose lists.
    texts: the answers, group by group.
  """
  listed = [row for row in task.sid_texts() for _ in range(task.group)]
  targets = [int(row) for row in task.targets() for _ in range(task.group)]

  def run():
    found = bench_reward.rewards(texts, listed, targets)
    advantages = bench_reward.advantages(found, task.group)
    return found, advantages, bench_reward.has_variance(found, task.group)

  return run
