"""What the trainers of token lists and of rankings share."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl.config import RLConfig
from gr2_jax.train import optimiser


def make_optimiser(
  config: RLConfig, trainable: optimiser.Trainable | None = None
) -> optimiser.Optimiser:
  """Returns AdamW at a constant learning rate after the warm-up.

  Args:
    config: its numbers.
    trainable: what is trained; see `optimiser.make`.
  """
  return optimiser.make(
    optimiser.OptimiserConfig(
      lr=config.lr,
      schedule='constant',
      warmup_steps=config.warmup_steps,
      weight_decay=config.weight_decay,
      clip_norm=config.clip_norm,
    ),
    trainable,
  )


def for_decoding(
  model: LMConfig, mesh: jax.sharding.Mesh
) -> Callable[[Any], tuple[LMConfig, Any]]:
  """Returns what makes a policy's parameters ready for rollouts.

  Args:
    model: shape of the LM.
    mesh: the mesh.

  Returns:
    Parameters by TRAIN_RULES -> (shape, parameters with narrow kernels by
    DECODE_RULES).
  """
  _, shardings = sharding.param_shardings(
    decoder.init_fn(model), mesh, sharding.DECODE_RULES, jax.random.key(0)
  )

  def convert(params: Any) -> tuple[LMConfig, Any]:
    shape, narrow = decoder.narrow(model, params)
    return shape, sharding.reshard(narrow, shardings)

  return convert


@functools.partial(jax.jit, static_argnames='index')
def round_key(key: jax.Array, step: jax.Array, index: int) -> jax.Array:
  """Folds step and round into a key: no two rounds share one."""
  return jax.random.fold_in(jax.random.fold_in(key, step), index)


@jax.jit
def next_step(step: jax.Array) -> jax.Array:
  """Counts a step where the count lies."""
  return step + 1
