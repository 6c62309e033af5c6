"""The mesh of a run: as its config says, or chosen by model and devices."""

import flax.linen as nn
import jax
import ml_collections

from gr2_jax import config as config_lib
from gr2_jax import processes, sharding
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, lora
from gr2_jax.stages import pretrained

# A size of config.mesh that is chosen.
AUTO = 0
_TABLES = ('embedding', 'output')


def make(config: ml_collections.ConfigDict) -> jax.sharding.Mesh:
  """Makes the mesh of `config.mesh`.

  Args:
    config: of a run. Where `mesh.fsdp` or `mesh.tensor` is 0, both and `data`
      are chosen (`sharding.choose_sizes`).

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
  shape = _shape(config)
  training, decoding = count_bytes(shape)
  sizes = sharding.choose_sizes(
    jax.device_count(),
    memory,
    training,
    decoding,
    shape.width,
    shape.kv_heads,
  )
  return dict(zip(sharding.AXES, sizes, strict=True))


def _memory() -> int | None:
  """Returns the bytes of a device; None for those that use the host's."""
  stats = jax.local_devices()[0].memory_stats()
  return stats.get('bytes_limit') if stats else None


def _shape(config: ml_collections.ConfigDict) -> lm_config.LMConfig:
  if pretrained.source(config):
    return pretrained.read_shape(config)
  tokens = config.text.pieces + config.sid.levels * config.sid.codes
  return lm_config.LMConfig(vocab_size=tokens, **config_lib.to_dict(config.lm))


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
