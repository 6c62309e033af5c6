"""What a training run carries from step to step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gr2_jax.train.optimiser import Optimiser


@struct.dataclass
class TrainState:
  """A pytree.

  Attributes:
    step: int32 scalar, updates done.
    params: plain dict of arrays.
    opt_state: of the optimiser.
  """

  step: jax.Array
  params: Any
  opt_state: Any


def create(params: Any, tx: Optimiser, mesh: Mesh) -> TrainState:
  """Starts a run at step 0.

  Args:
    params: parameters on the mesh. The state holds copies, because train
      steps donate their state.
    tx: from `optimiser.make`.
    mesh: the mesh.

  Returns:
    The state; optimiser moments are sharded like their parameters.

  Raises:
    ValueError: a trained parameter is not float32.
  """
  shardings = jax.tree.map(lambda x: x.sharding, abstract(params, tx, mesh))
  with jax.set_mesh(mesh):
    start = functools.partial(_start, tx)
    return jax.jit(start, out_shardings=shardings)(params)


def abstract(params: Any, tx: Optimiser, mesh: Mesh) -> TrainState:
  """Returns the state of `create` as shapes with shardings.

  Args:
    params: parameters on the mesh, or their shapes with shardings.
    tx: from `optimiser.make`.
    mesh: the mesh.

  Returns:
    A state of `jax.ShapeDtypeStruct`.

  Raises:
    ValueError: a trained parameter is not float32.
  """
  for path, x in jax.tree_util.tree_leaves_with_path(tx.split(params)[0]):
    if x.dtype != jnp.float32:
      raise ValueError(
        f'Parameter {jax.tree_util.keystr(path)} is {x.dtype}, and would be '
        'trained: updates are lost in its rounding. Load the model with '
        'param_dtype=float32, or train it by LoRA.'
      )
  whole = NamedSharding(mesh, PartitionSpec())
  by_path = {
    path: (x.shape, x.sharding)
    for path, x in jax.tree_util.tree_flatten_with_path(params)[0]
  }

  def place(path: Any, x: Any) -> Any:
    split = whole
    for start in range(len(path)):
      shape, sharding = by_path.get(path[start:], (None, None))
      if shape == x.shape:
        split = sharding
        break
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split)

  shapes = jax.eval_shape(functools.partial(_start, tx), params)
  return jax.tree_util.tree_map_with_path(place, shapes)


def _start(tx: Optimiser, params: Any) -> TrainState:
  params = jax.tree.map(jnp.copy, params)
  return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
