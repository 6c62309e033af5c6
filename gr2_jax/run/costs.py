"""An estimate of a run's time and memory, shown before it begins.

Tokens times parameters, with FLOPs by formula (`lm/flops.py`), over what a
device makes of such work. It is an estimate, and meant within a factor of two:
a CPU's rate is that of the quickstart on two cores with bfloat16 units; an
accelerator's is a guess, since models this small are bound by latency there.
Prompts are taken to be as long as they may be.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import jax
import ml_collections

from gr2_jax import config as config_lib
from gr2_jax import devices as devices_lib
from gr2_jax.data import counting, splits
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import flops
from gr2_jax.text import lengths

# FLOP/s of a core at width 160; wider matrices do proportionately better.
_CORE, _WIDTH = 70e9, 160
# Share of an accelerator's peak.
_UTILISED = 0.03
# Share of the lists that hold their target, where nothing tells it.
HITS = 0.15
# What a token written one at a time costs, in tokens that are read.
_WRITTEN = 100
# Parameters of MiniLM's blocks, and tokens of an item's text.
_ENCODER, _TEXT = 10.6e6, 48
# Seconds of compiling and reading, whatever the sizes.
_OVERHEAD = {
  **{'data': 5, 'sid': 15, 'midtrain': 15, 'candidates': 15},
  **{'traces': 5, 'sft': 30, 'rl': 45, 'evaluate': 30},
}
# Bytes of a process that has compiled its programs.
_PROCESS = 2e9
# Weights, gradients and two moments in float32.
_STATE = 16


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a run takes.

  Attributes:
    flops: by stage.
    memory: bytes, at the fullest point.
  """

  flops: Mapping[str, float]
  memory: float


def estimate(
  config: ml_collections.ConfigDict, counts: counting.Counts
) -> Cost:
  """Counts the work of a run by formula.

  Args:
    config: a whole config; its model is trained from scratch.
    counts: of the data.

  Returns:
    The cost.
  """
  model = _model(config)
  budgets, prompt = lengths.budgets(config), config.text.prompt
  # A history and its candidates, in semantic IDs alone.
  listed = lengths.candidates(config) * config.sid.levels
  shown = min(prompt.retrieval_items, counts.median)
  direct = lengths.history(config.sid.levels, shown) + listed
  words = config.rl.explanation_tokens
  split = config_lib.build(splits.SplitConfig, config.data.split)
  lists = counts.positions(split)
  items, interactions = counts.items, counts.interactions
  hits = {name: HITS * size for name, size in lists.items()}
  test = hits['test']
  if config.evaluate.max_lists:
    test = min(test, config.evaluate.max_lists)
  return Cost(
    {
      'data': 0.0,
      'sid': _sid(config, items),
      'midtrain': _rows(model, config.midtrain.all),
      'candidates': _read(model, sum(lists.values()), direct)
      + _read(model, sum(lists.values()), config.candidates.width * 3)
      + _sasrec(config, items, interactions),
      'traces': 0.0,
      'sft': _sft(config, model, direct, budgets.row)
      + _checkpoints(config.sft.train) * _read(model, hits['valid'], direct),
      'rl': _rl(config, model, direct, budgets)
      + config.rl.steps * _read(model, hits['valid'], direct),
      # Two models, each once more with shuffled candidates, and the list.
      'evaluate': _explained(
        model,
        2 * test + 2 * min(config.evaluate.shuffled_lists, test),
        budgets,
        words,
      )
      + _explained(model, test, budgets, budgets.direct),
    },
    _memory(config, model, items, interactions, budgets.row),
  )


def _model(config: ml_collections.ConfigDict) -> lm_config.LMConfig:
  tokens = config.text.pieces + config.sid.levels * config.sid.codes
  return config_lib.build(lm_config.ModelConfig, config.lm, 'lm').shape(tokens)


def _read(model: lm_config.LMConfig, rows: float, length: int) -> float:
  return flops.layers(model, rows * length, rows * flops.causal_keys(length))


def _train(model: lm_config.LMConfig, rows: float, length: int) -> float:
  keys = rows * flops.causal_keys(length)
  return flops.training(model, rows * length, keys)


def _checkpoints(phase: ml_collections.ConfigDict) -> int:
  """Returns how often a phase validates."""
  return -(-phase.steps // phase.ckpt_every)


def _rows(model: lm_config.LMConfig, phase: ml_collections.ConfigDict) -> float:
  return _train(model, phase.steps * phase.batch_size, phase.length)


def _explained(
  model: lm_config.LMConfig, rows: float, budgets: lengths.Budgets, words: int
) -> float:
  """Prompts read, and a number of tokens written behind each."""
  read = _read(model, rows, budgets.prompt)
  written = rows * words * _WRITTEN
  return read + flops.layers(model, written, 0)


def _sft(
  config: ml_collections.ConfigDict,
  model: lm_config.LMConfig,
  direct: int,
  row: int,
) -> float:
  sft = config.sft
  step = _train(model, sft.lists + sft.distilled, direct)
  step += _train(model, sft.explained, row)
  return sft.train.steps * step + _rows(model, sft.train)


def _rl(
  config: ml_collections.ConfigDict,
  model: lm_config.LMConfig,
  direct: int,
  budgets: lengths.Budgets,
) -> float:
  rl = config.rl
  scored = _read(model, rl.lists_per_step, direct)
  answers = rl.explained_per_step * rl.group_size
  written = _explained(model, answers, budgets, rl.explanation_tokens)
  trained = _train(model, rl.lists_per_step, direct)
  # The answers of a group share their prompt.
  trained += _train(model, rl.explained_per_step, budgets.prompt)
  trained += _train(model, answers, budgets.answer)
  return rl.steps * (scored + written + trained)


def _sid(config: ml_collections.ConfigDict, items: int) -> float:
  sid = config.sid
  width = 384
  weights = 0
  for out in (*sid.hidden, sid.latent):
    weights += 2 * width * out
    width = out
  text = 0.0 if sid.embeddings else 2 * _ENCODER * _TEXT * items
  return text + sid.epochs * items * 6 * weights


def _sasrec(
  config: ml_collections.ConfigDict, items: int, interactions: int
) -> float:
  cfg = config.candidates.sasrec
  block = cfg.width * (4 * cfg.width + 2 * cfg.mlp_dim)
  weights = items * cfg.width + cfg.layers * block
  return cfg.max_epochs * interactions * 6 * weights


def _memory(
  config: ml_collections.ConfigDict,
  model: lm_config.LMConfig,
  items: int,
  interactions: int,
  row: int,
) -> float:
  """Returns the memory of the process and of the largest stage."""
  state = _STATE * model.num_params
  phase, sft, sasrec = config.midtrain.all, config.sft, config.candidates.sasrec
  # Logits of a micro-batch and their gradient.
  rows = phase.batch_size * phase.length / phase.microbatches
  midtrain = state + 8 * rows * model.vocab_size
  scores = sft.explained * model.layers * model.heads * row**2
  catalogue = 8 * sasrec.batch_size * sasrec.length * items
  # Rows of Python objects while files are read; vectors of texts.
  data = 500 * interactions + 2000 * items
  return _PROCESS + max(
    midtrain, state + 8 * scores, catalogue, data, 8 * 384 * items
  )


def rate(found: Sequence[jax.Device], width: int) -> float | None:
  """Returns the FLOP/s that a run makes of devices; None where unknown.

  Args:
    found: devices of one kind.
    width: of the model.
  """
  if found[0].platform == 'cpu':
    return _CORE * len(os.sched_getaffinity(0)) * width / _WIDTH
  peak = devices_lib.peak_flops(found)
  return None if peak is None else _UTILISED * peak


def minutes(cost: Cost, speed: float) -> dict[str, float]:
  """Returns minutes by stage.

  Args:
    cost: of a run.
    speed: FLOP/s.
  """
  return {
    name: (work / speed + _OVERHEAD[name]) / 60
    for name, work in cost.flops.items()
  }


def lines(
  config: ml_collections.ConfigDict, counts: counting.Counts
) -> list[str]:
  """Describes how long a run takes here, and how much memory.

  Args:
    config: as for `estimate`.
    counts: as for `estimate`.

  Returns:
    A line or two, for people.
  """
  if config.lm.pretrained or config.traces.teacher != 'rules':
    return [
      'Minutes and memory are not estimated for pretrained models and for '
      'teachers other than the rules.'
    ]
  cost = estimate(config, counts)
  memory = f'{cost.memory / 2**30:.0f} GiB of memory'
  found = jax.devices()
  speed = rate(found, config.lm.width)
  cores = len(os.sched_getaffinity(0))
  where = f'{len(found)} x {found[0].device_kind}'
  if found[0].platform == 'cpu':
    where = f'{cores} CPU core{"s" if cores > 1 else ""}'
  if speed is None:
    total = sum(cost.flops.values())
    return [
      f'The run takes some {total / 1e12:,.0f} TFLOP and {memory}; how fast '
      f'{where} are is not known.'
    ]
  taken = minutes(cost, speed)
  parts = ', '.join(f'{k} {v:.0f}' for k, v in taken.items() if v >= 0.5)
  return [
    f'About {sum(taken.values()):.0f} minutes on {where} and {memory}: an '
    f'estimate for this kind of device, idle otherwise.',
    f'Minutes by stage: {parts}.',
  ]
