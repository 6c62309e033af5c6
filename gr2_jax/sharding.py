"""The device mesh, the two rule tables, and moving trees onto the mesh.

Mesh axes: `data` and `fsdp` split the batch, `fsdp` also the weights, `tensor`
splits heads, feed-forward width and vocabulary. Parameters name their axes
logically (`nn.with_logical_partitioning`); a rule table maps those names to
mesh axes. Parameters live as plain dicts of sharded arrays.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
BATCH = ('data', 'fsdp')
Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

_COMMON: Rules = (
  ('batch', BATCH),
  ('group', None),
  ('length', None),
  ('activation', None),
  ('heads', 'tensor'),
  ('kv_heads', 'tensor'),
  ('head', None),
  ('mlp', 'tensor'),
  ('vocab', 'tensor'),
  ('norm', None),
  ('lora', None),
  ('layers', None),
)

# The features of token tables have a name of their own, and so have the rows of
# a batch while tokens are looked up (`lm/decoder.py`).
TRAIN_RULES: Rules = (
  *_COMMON,
  ('embed', 'fsdp'),
  ('table', 'fsdp'),
  ('rows', 'data'),
)
DECODE_RULES: Rules = (
  *_COMMON,
  ('embed', None),
  ('table', None),
  ('rows', BATCH),
)


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Makes a mesh with the axes `data`, `fsdp` and `tensor`.

  Args:
    data: size of the data axis; -1, of one axis, takes the devices that the
      others leave.
    fsdp: size of the axis that splits batch and weights.
    tensor: size of the axis that splits heads, feed-forward and vocabulary.
    devices: the devices; all of them by default.

  Returns:
    The mesh, its axes left to the compiler (`AxisType.Auto`).

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  given = (data, fsdp, tensor)
  shape = given
  if given.count(-1) == 1:
    left = max(len(devices) // -math.prod(given), 1)
    shape = tuple(left if size == -1 else size for size in given)
  if min(shape) < 1 or math.prod(shape) != len(devices):
    raise ValueError(
      f'A mesh of data={data}, fsdp={fsdp}, tensor={tensor} does not cover '
      f'{len(devices)} devices: change config.mesh so that the product is '
      f'{len(devices)}, or give one axis -1.'
    )
  # Unlike `jax.make_mesh`, which lets the axes of some TPUs only be split: a
  # `tensor` of 2 on a torus of 4 x 4 x 4.
  placed = mesh_utils.create_device_mesh(
    shape, devices, allow_split_physical_axes=True
  )
  return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@contextlib.contextmanager
def use(mesh: Mesh, rules: Rules) -> Iterator[None]:
  """Makes `mesh` and `rules` current for everything run inside."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
    yield


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
  """Names the logical axes of an activation; no effect outside of `use`."""
  if len(names) != x.ndim:
    raise ValueError(f'{len(names)} axis names {names} for shape {x.shape}.')
  return nn.with_logical_constraint(x, names)


def named(mesh: Mesh, rules: Rules, *names: str | None) -> NamedSharding:
  """Returns the sharding of an array whose axes have these logical names."""
  return nn.logical_to_mesh_sharding(PartitionSpec(*names), mesh, rules)


def _check_divisible(path: Any, leaf: Any, sharding: NamedSharding) -> None:
  for size, axes in zip(leaf.shape, sharding.spec, strict=False):
    axes = (axes,) if isinstance(axes, str) else axes or ()
    parts = math.prod(sharding.mesh.shape[axis] for axis in axes)
    if size % parts:
      raise ValueError(
        f'Parameter {jax.tree_util.keystr(path)} {leaf.shape}: {size} does not '
        f'divide by {parts}, the size of mesh axes {axes}. Change the size or '
        'config.mesh.'
      )


def param_shardings(
  init_fn: Callable, mesh: Mesh, rules: Rules, *args: Any
) -> tuple[Any, Any]:
  """Finds shapes and shardings of what `init_fn(*args)` returns.

  Args:
    init_fn: returns a tree of (logically partitioned) arrays.
    mesh: the mesh.
    rules: the rule table.
    *args: arguments of `init_fn`; arrays or shapes.

  Returns:
    (tree of `ShapeDtypeStruct`, tree of `NamedSharding`), both plain.

  Raises:
    ValueError: a sharded axis does not divide by its mesh axes.
  """
  boxed = jax.eval_shape(init_fn, *args)
  shapes = nn.meta.unbox(boxed)
  shardings = nn.logical_to_mesh_sharding(
    nn.get_partition_spec(boxed), mesh, rules
  )
  jax.tree_util.tree_map_with_path(_check_divisible, shapes, shardings)
  return shapes, shardings


def init(
  init_fn: Callable, mesh: Mesh, rules: Rules, *args: Any
) -> tuple[Any, Any]:
  """Initialises parameters directly in their sharded form.

  Args:
    init_fn: e.g. `lambda key: module.init(key, example)['params']`.
    mesh: the mesh.
    rules: the rule table.
    *args: arguments of `init_fn`.

  Returns:
    (params as a plain dict of sharded arrays, their shardings).
  """
  _, shardings = param_shardings(init_fn, mesh, rules, *args)
  with use(mesh, rules):
    params = jax.jit(
      lambda *a: nn.meta.unbox(init_fn(*a)), out_shardings=shardings
    )(*args)
  return params, shardings


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits the first axis over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(BATCH))


def batch_parts(mesh: Mesh) -> int:
  """Returns into how many parts a batch is split."""
  return mesh.shape['data'] * mesh.shape['fsdp']


def own_rows(mesh: Mesh, rows: int) -> np.ndarray:
  """Returns which rows of a batch lie on devices of this process, int [n].

  Args:
    mesh: the mesh.
    rows: B, of the whole batch.
  """
  held = np.zeros(rows, bool)
  split = batch_sharding(mesh)
  for index in split.addressable_devices_indices_map((rows,)).values():
    held[index] = True
  return np.flatnonzero(held)


def shard_batch(mesh: Mesh, tree: Any) -> Any:
  """Puts a batch on the mesh, its rows split over data and fsdp.

  Every process of a run gives the whole batch, the same one, and puts the rows
  of its devices there: so a batch does not depend on the number of processes,
  and neither a row is lost nor does one come twice, whatever the mesh.

  Args:
    mesh: the mesh.
    tree: arrays [B, ...]; rows that are not this process's (`own_rows`) are not
      read.

  Returns:
    The tree as global arrays.

  Raises:
    ValueError: the batch does not divide by the devices.
  """
  sharding = batch_sharding(mesh)
  parts = batch_parts(mesh)

  def check(path: Any, x: Any) -> np.ndarray:
    x = np.asarray(x)
    rows = len(x) if x.ndim else 0
    if not rows or rows % parts:
      raise ValueError(
        f'Batch entry {jax.tree_util.keystr(path)} of shape {x.shape} has '
        f'{rows} rows, which do not divide by the {parts} devices of the axes '
        f'{BATCH}: change the batch size or config.mesh.'
      )
    return x

  checked = jax.tree_util.tree_map_with_path(check, tree)
  if sharding.is_fully_addressable:
    # All at once: of a small batch each transfer costs more than its data.
    return jax.device_put(checked, sharding)
  return jax.tree.map(lambda x: _put(x, sharding), checked)


def _put(x: Any, sharding: jax.sharding.Sharding) -> jax.Array:
  """Moves an array; one of the host is the same on every process."""
  if sharding.is_fully_addressable:
    return jax.device_put(x, sharding)
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    same = x.sharding.is_equivalent_to(sharding, x.ndim)
    return x if same else _mover(sharding)(x)
  # `device_put` would compare the processes' values: a message each.
  x = np.asarray(x)
  return jax.make_array_from_callback(
    x.shape, sharding, lambda index: np.asarray(x[index])
  )


@functools.cache
def _mover(sharding: jax.sharding.Sharding) -> Callable:
  return jax.jit(lambda x: x, out_shardings=sharding)


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Puts a tree whole on every device of the mesh."""
  return reshard(tree, NamedSharding(mesh, PartitionSpec()))


def reshard(tree: Any, shardings: Any) -> Any:
  """Moves a tree to other shardings (a tree of them, or one for all).

  What lies on the host must be the same on every process.
  """
  if jax.process_count() == 1:
    return jax.device_put(tree, shardings)
  if isinstance(shardings, jax.sharding.Sharding):
    return jax.tree.map(lambda x: _put(x, shardings), tree)
  return jax.tree.map(_put, tree, shardings)


def fetch(mesh: Mesh, tree: Any) -> Any:
  """Reads a tree of the mesh as NumPy arrays, whole, on every process."""
  return jax.device_get(replicate(mesh, tree))
