"""TRL's GRPOTrainer, the peer of the group `rl`, in a separate process.

So that it has threads and memory to itself. The benchmark starts

    python -m launch.bench.peers.trl_trainer

and writes {"task": `tasks.dump`, "way": one of WAYS} to it, which is
answered with a line when training begins; then an empty line for each RL step,
which is answered with its seconds by part.
"""

import collections
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TextIO

# Before the packages are imported, which read them.
os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'

import datasets
import numpy as np
import torch
import transformers
import trl

from gr2_jax.text import answer, semantic_ids
from launch import memory
from launch.bench import tasks
from launch.bench.peers import string_reward, transformers_lm

# How a step can be computed: type of the weights, and whether products are
# cast to bfloat16 (TRL's default).
WAYS = {
  'float32': (torch.float32, False),
  'autocast to bfloat16': (torch.float32, True),
  'bfloat16': (torch.bfloat16, False),
}
UPDATES = 2


def config(task: tasks.Task, directory: str, **changes) -> trl.GRPOConfig:
  """Returns DAPO's settings for a task: two updates on halves of the answers.

  Args:
    task: the step.
    directory: which nothing is written to.
    **changes: of the settings.
  """
  rows = task.queries * task.group
  settings = dict(
    output_dir=directory,
    loss_type='dapo',
    beta=0.0,
    epsilon=0.2,
    epsilon_high=0.28,
    num_generations=task.group,
    per_device_train_batch_size=rows // UPDATES,
    steps_per_generation=UPDATES,
    gradient_accumulation_steps=1,
    # For as long as steps are asked for.
    max_steps=10**9,
    max_completion_length=task.new,
    # No answer ends early.
    generation_kwargs={'min_new_tokens': task.new},
    learning_rate=1e-6,
    lr_scheduler_type='constant',
    # What costs time and is not asked for.
    gradient_checkpointing=False,
    use_cpu=True,
    save_strategy='no',
    logging_strategy='no',
    report_to='none',
    disable_tqdm=True,
    dataloader_pin_memory=False,
  )
  return trl.GRPOConfig(**settings | changes)


class Timed(trl.GRPOTrainer):
  """Notes where the time of its steps goes.

  Attributes:
    seconds: by part, summed up: `step` (an update, and what it waits for),
      `prepare` (what it waits for), and of that `rollout` (with decoding),
      `reward` and `log-probs` (those before the updates).
  """

  def __init__(self, *args, **kwargs):
    self.seconds = collections.Counter()
    super().__init__(*args, **kwargs)

  @contextlib.contextmanager
  def clock(self, part: str):
    """Adds the time of its block to a part."""
    started = time.perf_counter()
    yield
    self.seconds[part] += time.perf_counter() - started

  def _prepare_inputs(self, *args):
    with self.clock('prepare'):
      return super()._prepare_inputs(*args)

  def _generate(self, *args):
    with self.clock('rollout'):
      return super()._generate(*args)

  def _calculate_rewards(self, *args):
    with self.clock('reward'):
      return super()._calculate_rewards(*args)

  def _get_per_token_logps_and_entropies(self, *args, **kwargs):
    before = 'in an update' if torch.is_grad_enabled() else 'log-probs'
    with self.clock(before):
      return super()._get_per_token_logps_and_entropies(*args, **kwargs)


class _Steps(transformers.TrainerCallback):
  """Makes a step, which is `UPDATES` of TRL's, whenever it is asked for."""

  def __init__(
    self, seconds: collections.Counter, requests: TextIO, answers: TextIO
  ):
    self._seconds = seconds
    self._requests, self._answers = requests, answers
    self._started = 0.0

  def on_train_begin(self, args, state, control, **_):
    """Waits for the first request."""
    self._answer({}, control)

  def on_step_begin(self, args, state, control, **_):
    """Starts the clock of an update, which the optimiser is a part of."""
    self._seconds['step'] -= time.perf_counter()

  def on_step_end(self, args, state, control, **_):
    """Stops it; says where the time went and waits for the next request."""
    now = time.perf_counter()
    self._seconds['step'] += now
    if state.global_step % UPDATES:
      return
    parts = ('rollout', 'reward', 'log-probs')
    found = {part: self._seconds[part] for part in parts}
    found['update'] = self._seconds['step'] - self._seconds['prepare']
    rest = now - self._started - sum(found.values())
    self._answer({**found, 'rest': rest}, control)

  def _answer(self, found, control):
    print(json.dumps(found), file=self._answers, flush=True)
    control.should_training_stop = not self._requests.readline()
    self._seconds.clear()
    self._started = time.perf_counter()


def make(task: tasks.Task, way: str, directory: str, **changes) -> Timed:
  """Makes a trainer on random weights.

  Args:
    task: the step.
    way: of `WAYS`.
    directory: which nothing is written to.
    **changes: of the settings.
  """
  dtype, autocast = WAYS[way]
  words = task.words()
  prompts = [' '.join(words[i] for i in row) for row in task.prompts()]
  data = {
    'prompt': prompts,
    'candidates': task.lists(),
    'target': task.targets().tolist(),
  }
  made = Timed(
    transformers_lm.model(task.model).to(dtype),
    judge(task),
    config(task, directory, bf16=autocast, **changes),
    datasets.Dataset.from_dict(data),
    processing_class=transformers.PreTrainedTokenizerFast(
      tokenizer_object=tasks.tokenizer(task),
      pad_token=words[task.format.pad],
      eos_token=words[task.format.eos],
      padding_side='left',
    ),
  )
  made.remove_callback(transformers.PrinterCallback)
  return made


def judge(task: tasks.Task) -> Callable[..., list[float]]:
  """Returns the reward function: that of `string_reward`.

  Random weights write no JSON, which is rejected at once and makes all rewards
  equal. So each answer is replaced by a valid one in random order.
  """
  rng = np.random.default_rng(3)
  explanation = 'w9' * task.explanation

  def score(completions, candidates, target, **_):
    written = []
    for listed, _ in zip(candidates, completions, strict=True):
      order = map(semantic_ids.write, rng.permutation(listed).tolist())
      order = answer.SEP.join(order)
      written.append(
        f'{answer.OPEN}{explanation}{answer.MID}{order}{answer.CLOSE}'
      )
    return string_reward.rewards(written, candidates, target)

  return score


def main() -> None:
  """Answers requests until there are no more."""
  # As the benchmark's own process does: a step in float32 took 94 s without
  # it, 24 with.
  memory.keep()
  # What packages print goes elsewhere: standard output is for the answers.
  answers = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  transformers.logging.set_verbosity_error()
  request = json.loads(sys.stdin.readline())
  task = tasks.load(request['task'])
  with tempfile.TemporaryDirectory() as directory:
    made = make(task, request['way'], directory)
    made.add_callback(_Steps(made.seconds, sys.stdin, answers))
    made.train()


if __name__ == '__main__':
  main()
