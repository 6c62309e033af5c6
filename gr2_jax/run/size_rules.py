"""Which sizes fit a data set: pure rules over its counts, all our choice.

They give about the sizes of `configs/quickstart.py` for MovieLens-100K, and
about those of `configs/beauty.py` for Amazon Beauty.
"""

from typing import Any

import numpy as np

from gr2_jax.data import counting, splits
from gr2_jax.run import costs

# From this median number of items on histories are long.
_LONG = 20
# What is aimed at, as in the quickstart: held-out positions of all users.
_TEST, _VALID, _TRAIN = 6000, 3000, 38_000
# Test lists above which some thousands of those with a target are drawn.
_MANY_LISTS = 40_000


def sizes(counts: counting.Counts) -> dict[str, Any]:
  """Chooses settings that fit a data set.

  Args:
    counts: of the data set.

  Returns:
    Value by dotted name, of every setting that depends on the data but for
    its name and the budgets of tokens, which follow from other settings.
  """
  split = _split(counts)
  model = _model(counts)
  return {
    **{f'data.split.{name}': value for name, value in split.items()},
    **_semantic_ids(counts),
    **model,
    **_midtraining(counts, split, model['lm.width']),
    **_retrieval(counts),
    **_lists(counts, split),
  }


def _split(counts: counting.Counts) -> dict[str, Any]:
  """Holds out more positions a user, the fewer users there are.

  The retriever keeps a quarter of the median history, and at least eight items.
  """
  median = counts.median
  wanted = {
    'n_test': min(_TEST // counts.users, median // 8),
    'n_valid': min(_VALID // counts.users, median // 16),
  }
  wanted = {name: max(value, 1) for name, value in wanted.items()}
  room = median - sum(wanted.values()) - max(8, median // 4)
  wanted['n_train'] = max(min(_TRAIN // counts.users, room), 1)
  alone = set(wanted.values()) == {1}
  return {'kind': 'leave_one_out' if alone else 'last_n', **wanted}


def _semantic_ids(counts: counting.Counts) -> dict[str, Any]:
  """Two levels of codes alone could tell half of the items apart."""
  items = counts.items
  codes = 2 ** int(np.ceil(np.log2((2 * items) ** 0.5)))
  few, many = items < 5000, items >= 100_000
  return {
    'sid.codes': int(np.clip(codes, 16, 1024)),
    'sid.epochs': 120 if few else 40 if many else 60,
    'sid.batch_size': 256 if few else 2048 if many else 512,
    # Items that are bought together come close.
    'sid.contrastive': 0.05 if counts.median < _LONG else 0.0,
  }


# Largest measure of `_model` -> width, layers, heads, kv heads, head width,
# feed-forward, and pieces of text.
_MODELS = (
  (1000, (128, 3, 4, 2, 32, 384, 2000)),
  (8400, (160, 4, 4, 2, 40, 480, 3000)),
  (60_000, (256, 6, 8, 4, 32, 768, 4000)),
  (float('inf'), (384, 8, 8, 4, 48, 1152, 6000)),
)


def _model(counts: counting.Counts) -> dict[str, Any]:
  """Sizes the decoder by items, and by what there is to learn of them."""
  measure = counts.items + counts.interactions // 40
  names = ('width', 'layers', 'heads', 'kv_heads', 'head_dim', 'mlp_dim')
  *shape, pieces = next(given for most, given in _MODELS if measure <= most)
  found = {f'lm.{n}': x for n, x in zip(names, shape, strict=True)}
  return {**found, 'text.pieces': pieces}


def _midtraining(
  counts: counting.Counts, split: dict[str, Any], width: int
) -> dict[str, Any]:
  """Fits steps to the model, and gives large data about two passes."""
  large = width > 160
  rows, length = (32, 128) if large else (8, 256)
  tokens = {128: 800, 160: 2000, 256: 5000, 384: 8000}[width] * rows * length
  # Of an item four codes and two delimiters, and other tasks beside it.
  tokens = max(tokens, 15 * counts.interactions)
  held_out = split['n_test'] + split['n_valid'] + split['n_train']
  trained = np.maximum(counts.lengths - held_out, 1).sum()
  passes = 0.7 * tokens / (6 * trained)
  steps = round(tokens / (rows * length), -2)
  short = counts.median < _LONG
  weights = (0.8, 0.05, 0.14, 0.01) if short else (0.66, 0.14, 0.15, 0.05)
  tasks = ('next_item', 'persona', 'item_text', 'general_text')
  return {
    **{f'midtrain.weights.{t}': w for t, w in zip(tasks, weights, strict=True)},
    'midtrain.all.steps': int(steps),
    'midtrain.all.batch_size': rows,
    'midtrain.all.microbatches': 4 if large else 1,
    'midtrain.all.length': length,
    'midtrain.all.lr': {256: 2e-3, 384: 1e-3}.get(width, 3e-3),
    'midtrain.all.dropout': 0.05 if passes < 12 else 0.2,
    'midtrain.all.ckpt_every': 100 if steps < 1000 else 250,
  }


def _retrieval(counts: counting.Counts) -> dict[str, Any]:
  """Stops SASRec early where histories are long: it is flat by then."""
  epochs, every = (28, 4) if counts.median >= _LONG else (60, 2)
  if counts.interactions >= 2_000_000:
    epochs, every = 10, 2
  wide = counts.items >= 50_000
  return {
    'candidates.sasrec.width': 128 if wide else 64,
    'candidates.sasrec.mlp_dim': 512 if wide else 256,
    'candidates.sasrec.max_epochs': epochs,
    'candidates.sasrec.every': every,
  }


def _lists(counts: counting.Counts, split: dict[str, Any]) -> dict[str, Any]:
  """Goes over few lists a few times, not a hundred."""
  found = counts.positions(splits.SplitConfig(**split))
  # Half of the lists with a target are SFT's, half RL's.
  half = costs.HITS * found['train'] / 2
  steps = int(np.clip(round(4 * half / 16, -2), 100, 400))
  step = 2 ** int(np.ceil(np.log2(max(half / 4, 1))))
  return {
    'sft.train.steps': steps,
    'sft.train.ckpt_every': max(steps // 8, 25),
    'rl.lists_per_step': int(np.clip(step, 64, 512)),
    'evaluate.max_lists': 4000 if found['test'] > _MANY_LISTS else 0,
  }
