"""TRL's GRPOTrainer, the peer of `bench_rl`, in a process of its own.

So that it has threads and memory to itself: PyTorch is slower where freed
memory is kept, as `launch.memory` does for ours. The benchmark starts

    python -m launch.bench_trl

and writes lines of JSON to it, {"task": `bench_lists.dump`, "way": ..}. For
each it makes one RL step, and answers with its seconds by part.
"""

import collections
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable

# Before the packages are imported, which read them.
os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'

import datasets
import numpy as np
import tokenizers
import torch
import transformers
import trl

from gr2_jax.text import answer
from launch import bench_lists, bench_reward, bench_transformers

# How a step can be computed: type of the weights, and whether products are
# cast to bfloat16 (TRL's default).
WAYS = {
  'float32': (torch.float32, False),
  'autocast to bfloat16': (torch.float32, True),
  'bfloat16': (torch.bfloat16, False),
}
UPDATES = 2


def tokenizer(words: list[str]) -> transformers.PreTrainedTokenizerFast:
  """Returns a tokenizer whose id i is the i-th word.

  Args:
    words: their texts; the first two are padding and end.
  """
  ids = {word: i for i, word in enumerate(words)}
  inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, words[0]))
  inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  inner.decoder = tokenizers.decoders.Fuse()
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=inner,
    pad_token=words[0],
    eos_token=words[1],
    padding_side='left',
  )


def config(task: bench_lists.Task, directory: str, **changes) -> trl.GRPOConfig:
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
    max_steps=UPDATES,
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


class _Updates(transformers.TrainerCallback):
  """Notes how long the updates of a `Timed` take, the optimiser included."""

  def __init__(self, seconds: collections.Counter):
    self._seconds = seconds

  def on_step_begin(self, args, state, control, **_):
    self._seconds['step'] -= time.perf_counter()

  def on_step_end(self, args, state, control, **_):
    self._seconds['step'] += time.perf_counter()


def make(task: bench_lists.Task, way: str, directory: str, **changes) -> Timed:
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
    'candidates': task.sid_texts(),
    'target': task.targets().tolist(),
  }
  made = Timed(
    bench_transformers.model(task.model).to(dtype),
    judge(task),
    config(task, directory, bf16=autocast, **changes),
    datasets.Dataset.from_dict(data),
    processing_class=tokenizer(words),
  )
  made.remove_callback(transformers.PrinterCallback)
  made.add_callback(_Updates(made.seconds))
  return made


def judge(task: bench_lists.Task) -> Callable[..., list[float]]:
  """Returns the reward function: that of `bench_reward`.

  Random weights write no JSON, which is rejected at once and makes all rewards
  equal. So each answer is replaced by a valid one in random order.
  """
  rng = np.random.default_rng(3)
  explanation = 'w9' * task.explanation

  def score(completions, candidates, target, **_):
    written = []
    for listed, _ in zip(candidates, completions, strict=True):
      order = answer.SEP.join(rng.permutation(listed))
      written.append(
        f'{answer.OPEN}{explanation}{answer.MID}{order}{answer.CLOSE}'
      )
    return bench_reward.rewards(written, candidates, target)

  return score


def step(trainer: Timed) -> dict[str, float]:
  """Makes an RL step, by `train`.

  Returns:
    Seconds: `rollout`, `reward`, `log-probs`, `update`, `rest`.
  """
  trainer.seconds.clear()
  started = time.perf_counter()
  trainer.train()
  whole = time.perf_counter() - started
  parts = ('rollout', 'reward', 'log-probs')
  found = {part: trainer.seconds[part] for part in parts}
  found['update'] = trainer.seconds['step'] - trainer.seconds['prepare']
  return {**found, 'rest': whole - sum(found.values())}


def main() -> None:
  """Answers requests until there are no more."""
  # What packages print goes elsewhere: standard output is for the answers.
  answers = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  transformers.logging.set_verbosity_error()
  made = {}
  with tempfile.TemporaryDirectory() as directory:
    for line in sys.stdin:
      if line not in made:
        request = json.loads(line)
        task = bench_lists.load(request['task'])
        made[line] = make(task, request['way'], directory)
      print(json.dumps(step(made[line])), file=answers, flush=True)


if __name__ == '__main__':
  main()
