"""The mesh of a run: as its config says, or chosen by model and devices."""

import math

import flax.linen as nn
import jax
import ml_collections

from gr2_jax import config as config_lib
from gr2_jax import processes, sharding
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, lora
from gr2_jax.run import models

# A size of config.mesh that is chosen.
AUTO = 0
# Of a device's memory, for what `choose_sizes` counts.
_FILLED = 0.6
_TABLES = ('embedding', 'output')


def make(config: ml_collections.ConfigDict) -> jax.sharding.Mesh:
  """Makes the mesh of `config.mesh`.

  Args:
    config: of a run. Where `mesh.fsdp` or `mesh.tensor` is 0, both and `data`
      are chosen (`choose_sizes`).

  Returns:
    The mesh.

  Raises:
    ValueError: the sizes do not fit the devices, or no mesh holds the model.
  """
  sizes = config_lib.to_dict(config.mesh)
  if AUTO in sizes.values():
    sizes = _choose(config)
  mesh = sharding.make_mesh(**sizes)
  processes.connect(mesh)
  return mesh


def _choose(config: ml_collections.ConfigDict) -> dict[str, int]:
  # The devices of all processes get the same answer.
  memory = processes.on_first(_memory)
  shape, _ = models.shape(config)
  training, decoding = count_bytes(shape)
  sizes = choose_sizes(
    jax.device_count(),
    memory,
    training=training,
    decoding=decoding,
    width=shape.width,
    heads=shape.kv_heads,
  )
  return dict(zip(sharding.AXES, sizes, strict=True))


def choose_sizes(
  devices: int,
  memory: int | None,
  *,
  training: int,
  decoding: int,
  width: int,
  heads: int,
) -> tuple[int, int, int]:
  """Chooses a mesh that holds a model, split as little as possible.

  The smallest `tensor` with which some `fsdp` fits, then the smallest `fsdp`,
  both powers of two; data takes the rest. A device holds its parts of what
  training keeps, split over both, and of the copy that decodes, split over
  `tensor`; `_FILLED` of the memory may hold them, the rest is for activations
  and caches. Our choice.

  Args:
    devices: their number.
    memory: bytes of each; None where a device has no memory of its own (a CPU),
      for data parallelism.
    training: bytes of parameters, gradients and Adam's moments.
    decoding: bytes of the parameters as they decode.
    width: D; `fsdp` divides it.
    heads: M, key/value heads; `tensor` divides it.

  Returns:
    (data, fsdp, tensor).

  Raises:
    ValueError: no such mesh holds the model.
  """
  if memory is None:
    return devices, 1, 1
  for tensor in _powers(math.gcd(devices, heads)):
    for fsdp in _powers(math.gcd(devices // tensor, width)):
      need = training / (fsdp * tensor) + decoding / tensor
      if need <= _FILLED * memory:
        return devices // (fsdp * tensor), fsdp, tensor
  raise ValueError(
    f'No mesh of {devices} devices with {memory / 2**30:.1f} GiB each holds a '
    f'model of {training / 2**30:.1f} GiB in training and '
    f'{decoding / 2**30:.1f} GiB in decoding within {_FILLED:.0%} of the '
    'memory: take more devices, LoRA (lm.lora_rank), or give config.mesh its '
    'sizes.'
  )


def _powers(most: int) -> list[int]:
  """Returns the powers of two that divide `most`."""
  return [1 << i for i in range(most.bit_length()) if most % (1 << i) == 0]


def _memory() -> int | None:
  """Returns the bytes of a device; None for those that use the host's."""
  stats = jax.local_devices()[0].memory_stats()
  return stats.get('bytes_limit') if stats else None


def count_bytes(shape: lm_config.LMConfig) -> tuple[int, int]:
  """Counts what a model takes, on all devices together.

  Args:
    shape: of the model.

  Returns:
    (bytes of parameters, gradients and Adam's moments in training, bytes of the
    parameters in decoding). With LoRA its matrices and the tables are trained.
  """
  boxed = jax.eval_shape(decoder.init_fn(shape), jax.random.key(0))
  leaves = jax.tree_util.tree_leaves_with_path(nn.meta.unbox(boxed))
  training = decoding = 0
  for path, leaf in leaves:
    name = path[-1].key
    held = leaf.size * leaf.dtype.itemsize
    training += held
    if not shape.lora_rank or name in (*lora.NAMES, *_TABLES):
      training += 3 * 4 * leaf.size
    narrow = shape.bf16_matmul and name == 'kernel'
    decoding += 2 * leaf.size if narrow else held
  return training, decoding
