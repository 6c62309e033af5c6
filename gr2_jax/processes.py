"""Several processes of one run: who writes, and how all decide alike.

All processes run the same stages in the same order, on one mesh and one workdir
(`launch/cluster.py` joins them). So that they never diverge:

- What is written, or decided from what is on disk, goes through `on_first`: the
  first process does it, the others wait for its result or error.
  `MetricsWriter` does so by itself; Orbax has its own barriers and is called by
  all.
- Iterators, prompts and lists are the same on every process:
  `sharding.shard_batch` takes the whole batch and puts its rows on each device,
  so that data and iterator states do not depend on the number of processes.
  Item vectors are read only for `sharding.own_rows`. All text is packed by
  every process: that work does not shrink with their number.
- Values on devices are read by `sharding.fetch`; `jax.device_get` is only for
  what is whole on every device, such as the scalars of a step.
- Nothing that a process measures for itself (time, memory) may decide what is
  computed.
"""

import functools
import itertools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

# How long the others wait for the first process: if it dies, they end much
# earlier, by its missing heartbeats (launch/cluster.py).
_PATIENCE_MS = 7 * 24 * 3600 * 1000
_calls = itertools.count()


def _alone() -> bool:
  # Asked first, because counting would take hold of the devices.
  return not jax.distributed.is_initialized() or jax.process_count() == 1


def is_first() -> bool:
  """Returns whether this is the process that writes; true where it is alone."""
  return _alone() or jax.process_index() == 0


def on_first(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
  """Lets the first process do or decide something; all learn the result.

  All processes call it, in the same order. What `make` wrote is there when it
  returns, on every process.

  Args:
    make: called on the first process only; returns something JSON-able.
    *args: of `make`.
    **kwargs: of `make`.

  Returns:
    What `make` returned; on the other processes after a round trip through
    JSON.

  Raises:
    Exception: what `make` raised, on the first process.
    RuntimeError: the same in words, on the others.
  """
  if _alone():
    return make(*args, **kwargs)
  if not is_first():
    return _receive()
  try:
    value = make(*args, **kwargs)
    text = json.dumps({'value': value})
  except Exception as error:
    _exchange(json.dumps({'error': f'{type(error).__name__}: {error}'}))
    raise
  _exchange(text)
  return value


@functools.cache
def connect(mesh: jax.sharding.Mesh) -> None:
  """Connects the devices that a mesh's programs add up over, all at once.

  On CPUs a group of devices connects at its first use, for which its processes
  must come within 30 seconds of each other: compiling alone can take longer.

  Args:
    mesh: the mesh.
  """
  if _alone():
    return
  axes = [name for name, size in mesh.shape.items() if size > 1]
  groups = [
    names
    for size in range(1, len(axes) + 1)
    for names in itertools.combinations(axes, size)
  ]

  def add(x: jax.Array) -> list[jax.Array]:
    return [jax.lax.psum(x, names) for names in groups]

  everywhere = jax.sharding.PartitionSpec(mesh.axis_names)
  run = jax.jit(
    jax.shard_map(add, mesh=mesh, in_specs=everywhere, out_specs=everywhere)
  )
  split = jax.sharding.NamedSharding(mesh, everywhere)
  ones = np.ones(mesh.size, np.float32)
  x = jax.make_array_from_callback(ones.shape, split, lambda index: ones[index])
  compiled = run.lower(x).compile()
  on_first(lambda: None)
  jax.block_until_ready(compiled(x))


def _receive() -> Any:
  found = json.loads(_exchange(''))
  if 'error' in found:
    raise RuntimeError(f'The first process failed: {found["error"]}')
  return found['value']


def _exchange(text: str) -> str:
  """Sends the first process's text to all; waits for it however long."""
  wait = multihost.get_barrier_sync_fn()
  wait(key=f'gr2/on_first/{next(_calls)}', timeout_ms=_PATIENCE_MS)
  content = text.encode()
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
  # Few shapes, few compilations.
  buffer = np.zeros(max(1 << (size - 1).bit_length(), 1024), np.uint8)
  buffer[: len(content)] = np.frombuffer(content, np.uint8)
  whole = multihost_utils.broadcast_one_to_all(buffer)
  return bytes(whole[:size]).decode()
