"""AdamW with schedule, clipping, and a choice of what is trained."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

# Parameters under this name, a few numbers that utilities are made of, learn
# `_HEAD_RATE` times faster than a network, without weight decay (our choice).
HEAD = 'head'
_HEAD_RATE = 3.0

# True: trained; False: not; n: only rows n and after are trained.
Trainable = Callable[[tuple[str, ...]], bool | int]


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
  """AdamW; defaults are our choice unless marked.

  Attributes:
    lr: peak learning rate.
    schedule: 'constant', 'cosine' or 'linear' (both to 0 at `total_steps`).
    warmup_steps: linear rise to `lr`, from lr / warmup_steps at step 0.
    total_steps: length of the decay, warm-up included.
    weight_decay: decoupled, on all but norms, biases and the head; 0.01 [N:
      OneRec-Think].
    clip_norm: gradients are scaled down to this global norm; 0 turns it off.
    b1: decay of the first moment.
    b2: decay of the second moment.
  """

  lr: float = 1e-3
  schedule: str = 'cosine'
  warmup_steps: int = 0
  total_steps: int = 0
  weight_decay: float = 0.01
  clip_norm: float = 1.0
  b1: float = 0.9
  b2: float = 0.95

  def __post_init__(self):
    if self.schedule not in ('constant', 'cosine', 'linear'):
      raise ValueError(
        f'OptimiserConfig.schedule = {self.schedule!r}: choose constant, '
        'cosine or linear.'
      )
    if self.schedule != 'constant' and self.total_steps <= self.warmup_steps:
      raise ValueError(
        f'OptimiserConfig.total_steps = {self.total_steps} must exceed '
        f'warmup_steps = {self.warmup_steps} for a {self.schedule} schedule.'
      )
    for name in ('lr', 'warmup_steps', 'weight_decay', 'clip_norm'):
      if getattr(self, name) < 0:
        raise ValueError(
          f'OptimiserConfig.{name} = {getattr(self, name)} is negative.'
        )


@dataclasses.dataclass(frozen=True)
class Optimiser:
  """An optax transformation with what a train step reports.

  Attributes:
    init: params -> optimiser state, of the trained parameters only.
    update: (grads, state, params) -> (updates, state), all of the trained
      parameters.
    rate: optimiser state -> learning rate of its next update.
    select: grads -> grads, zero in rows that are not trained.
    split: params -> (trained, frozen), None in place of what is in the other.
  """

  init: Callable
  update: Callable
  rate: Callable
  select: Callable
  split: Callable


def _scheduled(path: tuple, value: Any) -> bool:
  """Picks the schedule's counter among the optimiser's."""
  del value
  return path[-1].tuple_name == 'ScaleByScheduleState'


def learning_rate(config: OptimiserConfig, step: jax.Array) -> jax.Array:
  """Returns the learning rate of update `step` (0-based), float32."""
  step = jnp.asarray(step, jnp.float32)
  rise = jnp.minimum((step + 1) / max(config.warmup_steps, 1), 1.0)
  if config.schedule == 'constant':
    return config.lr * rise
  span = config.total_steps - config.warmup_steps
  done = jnp.clip((step - config.warmup_steps) / span, 0.0, 1.0)
  if config.schedule == 'linear':
    return config.lr * rise * (1 - done)
  return config.lr * rise * 0.5 * (1 + jnp.cos(jnp.pi * done))


def new_rows(
  first: int, tables: tuple[str, ...] = ('embedding', 'output')
) -> Trainable:
  """Trains rows `first` and after of the tables, and nothing else."""
  return lambda path: first if path[-1] in tables else False


def _path(key_path: Any) -> tuple[str, ...]:
  return tuple(str(getattr(key, 'key', key)) for key in key_path)


def join(trained: Any, frozen: Any) -> Any:
  """Undoes `Optimiser.split`."""
  return jax.tree.map(
    lambda one, other: other if one is None else one,
    trained,
    frozen,
    is_leaf=lambda x: x is None,
  )


def _split(trainable: Trainable, params: Any) -> tuple[Any, Any]:
  def part(trained: bool) -> Any:
    return jax.tree_util.tree_map_with_path(
      lambda path, x: (
        x if (trainable(_path(path)) is not False) == trained else None
      ),
      params,
    )

  return part(True), part(False)


def _masked(trainable: Trainable, fill: float) -> Callable:
  """Returns a map over trees that fills the rows that are not trained."""

  def one(key_path: Any, x: jax.Array) -> jax.Array:
    rule = trainable(_path(key_path))
    if rule is True:
      return x
    shape = (-1,) + (1,) * (x.ndim - 1)
    rows = jnp.arange(x.shape[0]).reshape(shape) >= rule
    return jnp.where(rows, x, jnp.asarray(fill, x.dtype))

  return lambda tree: jax.tree_util.tree_map_with_path(one, tree)


def _decayed(params: Any) -> Any:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: (
      _path(path)[-1] not in ('scale', 'bias') and _path(path)[0] != HEAD
    ),
    params,
  )


def _faster_head() -> optax.GradientTransformation:
  def scale(updates: Any, params: Any = None) -> Any:
    del params
    return jax.tree_util.tree_map_with_path(
      lambda path, x: x * _HEAD_RATE if _path(path)[0] == HEAD else x, updates
    )

  return optax.stateless(scale)


def make(
  config: OptimiserConfig, trainable: Trainable | None = None
) -> Optimiser:
  """Builds the optimiser.

  Args:
    config: its numbers.
    trainable: from the path of a parameter (such as ('layers_0', 'mlp', 'up',
      'kernel')) to True, False, or the first row that is trained; everything
      by default. What is not trained keeps its bits: neither gradient, nor
      clipping, nor weight decay touch it, and whole parameters that are not
      trained cost neither gradients nor optimiser states.

  Returns:
    The optimiser.
  """
  schedule = lambda step: learning_rate(config, step)
  chain = []
  if config.clip_norm:
    chain.append(optax.clip_by_global_norm(config.clip_norm))
  chain.append(
    optax.adamw(
      schedule,
      b1=config.b1,
      b2=config.b2,
      weight_decay=config.weight_decay,
      mask=_decayed,
    )
  )
  chain.append(_faster_head())
  tx = optax.chain(*chain)
  if trainable is None:
    trainable = lambda path: True
  split = functools.partial(_split, trainable)
  select = _masked(trainable, 0.0)
  # x + -0.0 is x for every x, -0.0 too; x + 0.0 is not.
  freeze = _masked(trainable, -0.0)

  def update(grads, state, params):
    updates, state = tx.update(select(grads), state, params)
    return freeze(updates), state

  return Optimiser(
    init=lambda params: tx.init(split(params)[0]),
    update=update,
    rate=lambda state: schedule(
      optax.tree.get(state, 'count', None, _scheduled)
    ),
    select=select,
    split=split,
  )
