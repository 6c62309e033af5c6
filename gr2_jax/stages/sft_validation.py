"""What listwise SFT is validated by: its loss on lists and words not seen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.lm import config as lm_config
from gr2_jax.run import artifacts
from gr2_jax.stages import list_prompts, listwise, sft_loss
from gr2_jax.train import metrics as metrics_lib

# What the best checkpoint is chosen by.
CHOICE = 'valid_choice_nll'


def make(
  store: artifacts.Artifacts,
  shape: lm_config.LMConfig,
  lists: artifacts.CandidateLists,
  traces: Sequence[Mapping],
  mesh: jax.sharding.Mesh,
) -> Callable[[Any], dict[str, float]]:
  """Makes what measures a ranker.

  Args:
    store: the run's artifacts.
    shape: of the LM.
    lists: where the traces' lists come from.
    traces: held-out ones; empty where no explanation is trained.
    mesh: the mesh.

  Returns:
    {'lm', 'head'} -> what `listwise.validation` gives of the validation lists,
    `valid_words_nll` of a word, `valid_explained_nll` of the true item behind
    words, and `valid_choice_nll`, of the true item by both heads without words.
    The best checkpoint is chosen by the last: words are nine tenths of the
    training loss, and improve further where rankings overfit already.
  """
  fmt = store.vocab.answer_format()
  valid = list_prompts.direct_prompts(store, store.lists('valid').hits())
  direct = listwise.validation(shape, fmt, valid, mesh)
  explained = lambda params: {}
  if traces:
    rows = list_prompts.explained_rows(store, lists, traces, 0.0, 0)
    # Of its metrics alone: no weight of words or text is read.
    loss = sft_loss.make(shape, fmt, [], 0.0, 0.0)
    explained = _words(loss, rows, mesh)

  def measure(params: Any) -> dict[str, float]:
    found = {**direct(params), **explained(params)}
    chosen = found['valid_nll'] + found['valid_alone_nll']
    return {**found, CHOICE: chosen}

  return measure


def _words(
  loss: Callable[[Any, Any], tuple],
  rows: list_prompts.ExplainedRows,
  mesh: jax.sharding.Mesh,
  batch_size: int = 32,
) -> Callable[[Any], Mapping[str, float]]:
  """Makes what measures a ranker on explanations that it did not see.

  Args:
    loss: from `sft_loss.make`.
    rows: held-out lists with words.
    mesh: the mesh.
    batch_size: lists a pass, at most; rounded down to fit the mesh.

  Returns:
    {'lm', 'head'} -> `valid_words_nll` of a word, `valid_explained_nll` of the
    true item behind them.
  """
  parts = sharding.batch_parts(mesh)
  size = max(min(batch_size, len(rows)) // parts, 1) * parts
  # All batches are full: a few lists may count twice.
  starts = range(0, len(rows), size)
  chosen = [np.arange(i, i + size) % len(rows) for i in starts]
  score = jax.jit(
    lambda params, batch: loss(params, {sft_loss.EXPLAINED: batch})[-1]
  )

  def measure(params: Any) -> dict[str, float]:
    pairs = None
    with sharding.use(mesh, sharding.TRAIN_RULES):
      for each in chosen:
        batch = sharding.shard_batch(mesh, rows.batch(each))
        new = jax.device_get(score(params, batch))
        pairs = new if pairs is None else metrics_lib.combine(pairs, new, np)
    found = metrics_lib.means(pairs)
    return {
      'valid_words_nll': float(found['nll_words']),
      'valid_explained_nll': float(found['nll_explained']),
    }

  return measure
