"""What listwise SFT and RL on rankings share: prompts, parameters, validation.

A ranker's parameters are {'lm': of the decoder, 'head': `rank.heads`}. Its
model directory holds the decoder (`lm/io.py`) and `head.json`.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gr2_jax import processes, progress, sharding
from gr2_jax.data import padding
from gr2_jax.lm import io
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import heads, metrics, plackett_luce, utilities
from gr2_jax.rl import prompt_set, rollout
from gr2_jax.run import artifacts, pretrained
from gr2_jax.text.answer import AnswerFormat
from gr2_jax.train import optimiser

# Validation lists a pass; rounded up to fit the mesh.
_VALIDATED = 64


def fit_head(store: artifacts.Artifacts, mesh: jax.sharding.Mesh) -> Any:
  """Makes the head that training starts from, on all training lists.

  Args:
    store: the run's artifacts.
    mesh: where to, whole on every device.
  """
  lists = store.training_lists()
  made = heads.fit(lists.features, lists.candidates >= 0, lists.target)
  return sharding.replicate(mesh, made)


def stack_head(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  prompts: prompt_set.PromptSet,
  *,
  head: Any,
  mesh: jax.sharding.Mesh,
) -> Any:
  """Fits the head on lists that the LM was not trained on (`heads.stack`).

  Args:
    model: shape of the LM.
    fmt: the answer format.
    params: of the LM.
    prompts: direct prompts of the lists.
    head: where training began, of `fit_head`.
    mesh: the mesh.
  """
  chunks = []
  with (
    sharding.use(mesh, sharding.TRAIN_RULES),
    progress.bar(_rows(prompts, mesh), desc='weights', unit='batch') as bar,
  ):
    for rows in bar:
      lists = sharding.shard_batch(mesh, prompts.batch(rows))
      found = _jitted_logps(model, fmt, params, lists)
      chunks.append(sharding.fetch(mesh, found))
  made = heads.stack(
    sharding.fetch(mesh, head),
    np.concatenate(chunks)[: len(prompts)],
    prompts.features,
    prompts.candidates >= 0,
    prompts.target,
  )
  return sharding.replicate(mesh, made)


def _rows(
  prompts: prompt_set.PromptSet, mesh: jax.sharding.Mesh
) -> list[np.ndarray]:
  """Returns the lists of each batch, the last filled up from the front."""
  most = min(_VALIDATED, len(prompts))
  size = padding.round_up(most, sharding.batch_parts(mesh))
  starts = range(0, len(prompts), size)
  return [np.arange(i, i + size) % len(prompts) for i in starts]


def direct_logps(
  model: LMConfig,
  fmt: AnswerFormat,
  params: Any,
  lists: rollout.PromptBatch,
  dropout: jax.Array | None = None,
) -> jax.Array:
  """Scores the candidates of lists behind their direct prompts.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    params: of the LM.
    lists: with direct prompts.
    dropout: key of what is dropped; None drops nothing.

  Returns:
    float32 [Q, K], log P of each candidate's semantic ID.
  """
  return utilities.sid_logps(
    model,
    fmt,
    params,
    lists.prompt,
    lists.prompt_valid,
    sids=lists.candidate_sids,
    dropout=dropout,
  )


_jitted_logps = jax.jit(direct_logps, static_argnames=('model', 'fmt'))


def trainable(
  shape: LMConfig, store: artifacts.Artifacts
) -> optimiser.Trainable | None:
  """Returns which of a ranker's parameters learn: all of the head.

  Args:
    shape: of the LM.
    store: gives the vocabulary.
  """
  inner = pretrained.trainable(shape, store.vocab)
  if inner is None:
    return None
  return lambda path: path[0] == optimiser.HEAD or inner(path[1:])


def save(
  directory: pathlib.Path,
  shape: LMConfig,
  params: Any,
  names: tuple[str, ...],
  mesh: jax.sharding.Mesh,
) -> dict:
  """Writes a ranker; returns temperature and weights for the summary.

  Args:
    directory: where to.
    shape: of the LM.
    params: {'lm', 'head'}.
    names: of the evidence columns.
    mesh: the mesh.
  """
  io.save(directory, shape, params['lm'])
  head = sharding.fetch(mesh, params['head'])
  processes.on_first(heads.save, directory, head, names)
  return heads.describe(head, names)


def load(
  directory: pathlib.Path, mesh: jax.sharding.Mesh, rules: sharding.Rules
) -> tuple[LMConfig, Any, tuple[str, ...]]:
  """Reads a ranker.

  Args:
    directory: of the model.
    mesh: the mesh.
    rules: TRAIN_RULES or DECODE_RULES.

  Returns:
    (shape of the LM, {'lm', 'head'}, names of the evidence columns).

  Raises:
    FileNotFoundError: no model, or one without utilities.
  """
  found = heads.load(directory)
  if found is None:
    raise FileNotFoundError(
      f'The model in {directory} has no head.json: it was trained with '
      "answer.ranking='list'. Run SFT with answer.ranking='likelihood'."
    )
  shape, params = io.load(directory, mesh, rules)
  head, names = found
  return shape, {'lm': params, 'head': sharding.replicate(mesh, head)}, names


@functools.partial(jax.jit, static_argnames=('model', 'fmt'))
def direct_utilities(
  model: LMConfig, fmt: AnswerFormat, params: Any, lists: rollout.PromptBatch
) -> dict[str, jax.Array]:
  """Computes the utilities of lists without explanation.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    params: {'lm', 'head'}.
    lists: with direct prompts.

  Returns:
    Head to float32 [Q, K].
  """
  logps = direct_logps(model, fmt, params['lm'], lists)
  head = params['head']
  return {
    name: heads.utilities(head, name, logps, lists.features)
    for name in heads.HEADS
  }


@functools.partial(jax.jit, static_argnames=('model', 'fmt'))
def _direct_validation(model, fmt, params, lists):
  found = direct_utilities(model, fmt, params, lists)
  mask = lists.candidate_mask
  nll = {
    name: utilities.listwise_nll(values, mask, lists.grades)
    for name, values in found.items()
  }
  order = {
    name: plackett_luce.sort(values, mask) for name, values in found.items()
  }
  places = {
    name: (x == lists.target[:, None]).argmax(-1) for name, x in order.items()
  }
  return nll, places


def validation(
  model: LMConfig,
  fmt: AnswerFormat,
  prompts: prompt_set.PromptSet,
  mesh: jax.sharding.Mesh,
) -> Callable[[Any], Mapping[str, float]]:
  """Makes what measures a ranker on validation lists, without explanation.

  Args:
    model: shape of the LM.
    fmt: the answer format.
    prompts: direct prompts of the lists.
    mesh: the mesh.

  Returns:
    {'lm', 'head'} -> `valid_nll` of the true item, `valid_ndcg@5` and
    `valid_recall@1` of the full head, and `valid_alone_ndcg@5`.
  """
  # What the last batch is filled up with is cut off.
  rows = _rows(prompts, mesh)

  def measure(params: Any) -> dict[str, float]:
    nlls, places = [], []
    with sharding.use(mesh, sharding.TRAIN_RULES):
      for each in rows:
        batch = sharding.shard_batch(mesh, prompts.batch(each))
        found = _direct_validation(model, fmt, params, batch)
        nll, place = sharding.fetch(mesh, found)
        nlls.append(nll)
        places.append(place)
    join = lambda parts, name: np.concatenate([x[name] for x in parts])[
      : len(prompts)
    ]
    full, alone = join(places, heads.FULL), join(places, heads.ALONE)
    return {
      'valid_nll': float(join(nlls, heads.FULL).mean()),
      'valid_alone_nll': float(join(nlls, heads.ALONE).mean()),
      'valid_recall@1': float(metrics.recall_at_k(full, 1)),
      'valid_ndcg@5': float(metrics.ndcg_at_k(full, 5)),
      'valid_alone_ndcg@5': float(metrics.ndcg_at_k(alone, 5)),
    }

  return measure
