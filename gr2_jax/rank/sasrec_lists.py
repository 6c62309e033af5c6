"""What a trained SASRec is asked for: the best items, and ranks of targets."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.rank import sasrec_data
from gr2_jax.rank import sasrec_model as network

# Histories that are scored at a time.
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained SASRec.

  Attributes:
    config: the network's shape.
    params: its parameters, on `mesh`.
    mesh: the mesh.
  """

  config: network.NetworkConfig
  params: Any
  mesh: jax.sharding.Mesh


def top_k(
  model: Model,
  histories: Sequence[np.ndarray],
  k: int,
  exclude_seen: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
  """Lists the k best next items of each history.

  Args:
    model: the trained model.
    histories: N arrays of item indices, oldest first, none empty.
    k: length of each list, at most the size of the catalogue.
    exclude_seen: leaves out all items of the history.

  Returns:
    items int32 [N, k], best first, the lower index first among equal scores;
    and their logits float32 [N, k]. -1 and -inf where no item is left.

  Raises:
    ValueError: k above the number of items, or an empty history.
  """
  if not 1 <= k <= model.config.num_items:
    raise ValueError(
      f'k = {k}: the catalogue has {model.config.num_items} items; ask for 1 '
      'to as many.'
    )
  run = functools.partial(_lists, model.config, k)
  found = _in_batches(model, run, histories, exclude_seen, {})
  return found['items'], found['scores']


def find_ranks(
  model: Model,
  histories: Sequence[np.ndarray],
  targets: np.ndarray,
  exclude_seen: bool = True,
) -> np.ndarray:
  """Finds where each target stands in the ranking of the whole catalogue.

  Args:
    model: the trained model.
    histories: N arrays of item indices, oldest first, none empty.
    targets: int32 [N].
    exclude_seen: leaves out the items of the history, as `top_k` does; a target
      that was seen ranks behind every item that was not.

  Returns:
    int32 [N], 0-based: the position in `top_k(model, histories, I)`.
  """
  run = functools.partial(_ranks, model.config)
  given = {'targets': np.asarray(targets, np.int32)}
  return _in_batches(model, run, histories, exclude_seen, given)['ranks']


def scores(
  model: Model, histories: Sequence[np.ndarray], items: np.ndarray
) -> np.ndarray:
  """Scores given items as the next ones, seen or not.

  Args:
    model: the trained model.
    histories: N arrays of item indices, oldest first, none empty.
    items: int32 [N, K], item indices, none negative.

  Returns:
    float32 [N, K], the logits.
  """
  run = functools.partial(_chosen, model.config)
  given = {'items': np.asarray(items, np.int32)}
  return _in_batches(model, run, histories, False, given)['scores']


def lengths(model: Model) -> tuple[int, ...]:
  """Returns a length of histories for each shape that they are padded to."""
  return sasrec_data.widths(model.config.max_length)


def _scores(config: network.NetworkConfig, params: Any, batch: Any) -> Any:
  """Logits [B, rows] after each history; -inf for what was seen."""
  tokens, lengths = batch['tokens'], batch['lengths']
  place = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
  hidden = network.SASRec(config).apply(
    {'params': params}, tokens, place, jnp.ones_like(tokens)
  )
  last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
  values = network.logits(config, params, last[:, 0])
  row = jnp.arange(len(tokens))[:, None]
  return values.at[row, batch['seen']].set(-jnp.inf, mode='drop')


@functools.partial(jax.jit, static_argnums=(0, 1))
def _lists(
  config: network.NetworkConfig, k: int, params: Any, batch: Any
) -> dict[str, jax.Array]:
  values, items = jax.lax.top_k(_scores(config, params, batch), k)
  real = jnp.isfinite(values) & (items < config.num_items)
  return {
    'items': jnp.where(real, items, -1),
    'scores': jnp.where(real, values, -jnp.inf),
  }


@functools.partial(jax.jit, static_argnums=0)
def _chosen(
  config: network.NetworkConfig, params: Any, batch: Any
) -> dict[str, jax.Array]:
  values = _scores(config, params, batch)
  return {'scores': jnp.take_along_axis(values, batch['items'], axis=1)}


@functools.partial(jax.jit, static_argnums=0)
def _ranks(
  config: network.NetworkConfig, params: Any, batch: Any
) -> dict[str, jax.Array]:
  values = _scores(config, params, batch)
  target = batch['targets'][:, None]
  own = jnp.take_along_axis(values, target, axis=1)
  index = jnp.arange(config.rows)[None, :]
  before = (values > own) | ((values == own) & (index < target))
  before = before & (index < config.num_items)
  return {'ranks': before.sum(axis=1, dtype=jnp.int32)}


def _in_batches(
  model: Model,
  run: Callable,
  histories: Sequence[np.ndarray],
  exclude_seen: bool,
  given: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Runs `run(params, batch)` on histories of similar length at a time."""
  lengths = np.array([len(history) for history in histories])
  if not lengths.all():
    raise ValueError(
      f'History {int(np.argmin(lengths))} is empty; SASRec needs at least one '
      'item.'
    )
  size = padding.batch_size(model.mesh, len(histories), _BATCH)
  batches = list(padding.by_length(lengths, size))
  found: dict[str, list[np.ndarray]] = {}
  with sharding.use(model.mesh, sharding.DECODE_RULES):
    for rows in batches:
      batch = sasrec_data.pad(
        [histories[i] for i in rows],
        model.config.max_length,
        nothing=model.config.rows,
        exclude_seen=exclude_seen,
      )
      batch.update({name: values[rows] for name, values in given.items()})
      batch = {
        name: np.concatenate([x, np.repeat(x[-1:], size - len(rows), axis=0)])
        for name, x in batch.items()
      }
      done = run(model.params, sharding.shard_batch(model.mesh, batch))
      for name, values in sharding.fetch(model.mesh, done).items():
        found.setdefault(name, []).append(values[: len(rows)])
  back = np.argsort(np.concatenate(batches))
  return {name: np.concatenate(parts)[back] for name, parts in found.items()}
