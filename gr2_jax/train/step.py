"""The one train step, for all losses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gr2_jax.train import metrics as metrics_lib
from gr2_jax.train.optimiser import Optimiser, join
from gr2_jax.train.state import TrainState

LossFn = Callable[..., tuple[jax.Array, jax.Array, dict]]


def split(batch: Any, parts: int) -> Any:
  """Cuts [B, ...] into [parts, B / parts, ...].

  Part i takes rows i, i + parts, ...: so each device keeps its own rows.
  """

  def cut(x: jax.Array) -> jax.Array:
    if x.shape[0] % parts:
      raise ValueError(
        f'A batch of {x.shape[0]} rows does not divide into {parts} '
        'micro-batches: change the batch size or microbatches.'
      )
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
    return jnp.swapaxes(x, 0, 1)

  return jax.tree.map(cut, batch)


def accumulate(
  loss_fn: LossFn, params: Any, batch: Any, microbatches: int
) -> tuple[Any, jax.Array, jax.Array, dict]:
  """Sums gradients over micro-batches.

  Args:
    loss_fn: (params, batch) -> (loss sum, count, metrics of pairs).
    params: parameters.
    batch: arrays [B, ...].
    microbatches: into how many parts the batch is cut.

  Returns:
    (gradients of the loss sum, loss sum, count, metrics).
  """

  def one(part: Any) -> tuple:
    def wrapped(params):
      total, count, metrics = loss_fn(params, part)
      return total, (count, metrics)

    (total, (count, metrics)), grads = jax.value_and_grad(
      wrapped, has_aux=True
    )(params)
    return grads, total, jnp.asarray(count, jnp.float32), metrics

  if microbatches == 1:
    return one(batch)
  parts = split(batch, microbatches)
  shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts))
  *zeros, metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  start = (*zeros, metrics_lib.neutral(metrics))

  def body(carry: tuple, part: Any) -> tuple:
    *sums, metrics = carry
    *more, new = one(part)
    sums = jax.tree.map(jnp.add, sums, more)
    return (*sums, metrics_lib.combine(metrics, new)), None

  return jax.lax.scan(body, start, parts)[0]


class TrainStep:
  """A jitted update; made by `make_train_step`."""

  def __init__(self, loss_fn: LossFn, tx: Optimiser, microbatches: int):
    """Keeps the parts; compiles at the first call."""
    if microbatches < 1:
      raise ValueError(f'microbatches = {microbatches}: give at least 1.')
    self._loss_fn = loss_fn
    self._tx = tx
    self._microbatches = microbatches
    self._compiled = {}

  def _update(
    self, state: TrainState, batch: Any, *others: Any
  ) -> tuple[TrainState, dict]:
    trained, frozen = self._tx.split(state.params)
    grads, total, count, metrics = accumulate(
      lambda trained, part: self._loss_fn(join(trained, frozen), part, *others),
      trained,
      batch,
      self._microbatches,
    )
    count = jnp.where(count == 0, 1.0, count)
    grads = jax.tree.map(lambda g: g / count, self._tx.select(grads))
    norm = optax.tree.norm(grads)
    updates, opt_state = self._tx.update(grads, state.opt_state, trained)
    params = optax.apply_updates(trained, updates)
    # What is not finite would be so in every parameter from here on.
    good = jnp.isfinite(total) & jnp.isfinite(norm)
    params, opt_state = jax.tree.map(
      lambda after, before: jnp.where(good, after, before),
      (params, opt_state),
      (trained, state.opt_state),
    )
    one = jnp.ones((), jnp.float32)
    metrics = {
      **metrics,
      'loss': (total, count),
      'grad_norm': (norm, one),
      'lr': (self._tx.rate(state.opt_state), one),
      'skipped': (one - good.astype(jnp.float32), one),
    }
    params = join(params, frozen)
    return TrainState(state.step + 1, params, opt_state), metrics

  def __call__(
    self, state: TrainState, batch: Any, *others: Any
  ) -> tuple[TrainState, dict]:
    """Makes one update; `state` is donated, do not use it afterwards.

    One whose loss or gradient is not finite changes nothing but the step: the
    learning rate follows the updates that were made.

    Args:
      state: the state before.
      batch: arrays [B, ...], put on the mesh by `sharding.shard_batch`.
      *others: what the loss function reads besides, whole for each part of the
        batch, such as the parameters of a frozen model.

    Returns:
      (state after, metrics of pairs (sum, count): the loss function's, and
      `loss`, `grad_norm`, `lr`, `skipped`). `metrics.means` divides them.
    """
    return self._jitted(state)(state, batch, *others)

  def lower(
    self, state: TrainState, batch: Any, *others: Any
  ) -> jax.stages.Lowered:
    """Returns the program of an update, from shapes with shardings alone."""
    return self._jitted(state).lower(state, batch, *others)

  def _jitted(self, state: TrainState) -> Callable:
    shardings = jax.tree.map(lambda x: x.sharding, state)
    leaves, tree = jax.tree.flatten(shardings)
    key = (tree, tuple(leaves))
    if key not in self._compiled:
      self._compiled[key] = jax.jit(
        self._update, donate_argnums=0, out_shardings=(shardings, None)
      )
    return self._compiled[key]


def make_train_step(
  loss_fn: LossFn, tx: Optimiser, microbatches: int = 1
) -> TrainStep:
  """Makes the train step of a loss.

  Args:
    loss_fn: (params, batch, *others) -> (loss sum, count, metrics {name: (sum,
      count)}). Gradients of the sum are divided once, by the count of the whole
      batch.
    tx: from `optimiser.make`.
    microbatches: gradients are accumulated over this many parts of the batch.

  Returns:
    `step(state, batch, *others) -> (state, metrics)`. Call it inside
    `sharding.use`.
  """
  return TrainStep(loss_fn, tx, microbatches)
