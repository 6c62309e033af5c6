"""Puts the tensors of a foreign checkpoint onto the mesh, shard by shard.

`lm/hf.py` and `lm/gguf.py` know the files; this module knows our parameters.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import RUNTIME, LMConfig


class Name(NamedTuple):
  """Which tensor of a model: one of one layer, or one beside the layers.

  Attributes:
    path: such as ('attention', 'query', 'kernel') of a layer, or
      ('embedding',), ('output',), ('final_norm', 'scale').
    layer: 0-based, or None beside the layers.
  """

  path: tuple[str, ...]
  layer: int | None


# Returns the part `index` of a tensor as our layout has it: kernels [A, B].
Fetch = Callable[[Name, tuple[slice, ...]], np.ndarray]


def names(config: LMConfig) -> Iterator[tuple[Name, tuple[int, ...]]]:
  """Yields all tensors of a model with their shapes, layer by layer."""
  for path, leaf in _leaves(config):
    name = _name(path)
    if config.scan and name.layer == 0:
      for layer in range(config.layers):
        yield Name(name.path, layer), leaf.shape[1:]
    else:
      yield name, leaf.shape


def check_settings(settings: dict[str, Any]) -> None:
  """Raises a ValueError where a setting is not one of `RUNTIME`."""
  unknown = sorted(set(settings) - set(RUNTIME))
  if unknown:
    raise ValueError(
      f'{unknown} cannot be set when a checkpoint is loaded: the checkpoint '
      f'fixes the model; {list(RUNTIME)} are yours.'
    )


def place(
  config: LMConfig, mesh: jax.sharding.Mesh, rules: sharding.Rules, fetch: Fetch
) -> Any:
  """Builds the parameters; no host holds more than its shards and a tensor.

  Args:
    config: shape of the model, without LoRA.
    mesh: the mesh.
    rules: TRAIN_RULES or DECODE_RULES.
    fetch: reads a part of a tensor; is asked for the parts that this process
      holds, one tensor after the other.

  Returns:
    The parameters, of `config.param_dtype`, as `decoder.init` shapes them.
  """
  if config.lora_rank:
    raise ValueError('A checkpoint is loaded without LoRA: see lm/lora.py.')
  shapes, shardings = sharding.param_shardings(
    decoder.init_fn(config), mesh, rules, jax.random.key(0)
  )

  def build(path: Any, shape: Any, split: Any) -> jax.Array:
    name = _name(path)
    stacked = config.scan and name.layer is not None
    parts = {}

    def part(index: tuple[slice, ...]) -> np.ndarray:
      key = str(index)
      if key not in parts:
        parts[key] = _read(fetch, name, shape, index, stacked)
      return parts[key]

    array = jax.make_array_from_callback(shape.shape, split, part)
    # The next tensor is read when this one has left the host.
    return jax.block_until_ready(array)

  return jax.tree_util.tree_map_with_path(build, shapes, shardings)


def _read(
  fetch: Fetch,
  name: Name,
  shape: jax.ShapeDtypeStruct,
  index: tuple[slice, ...],
  stacked: bool,
) -> np.ndarray:
  index = tuple(
    slice(*s.indices(n)) for s, n in zip(index, shape.shape, strict=True)
  )
  out = np.zeros([s.stop - s.start for s in index], shape.dtype)
  if not stacked:
    out[...] = _checked(name, fetch(name, index), out.shape)
    return out
  layers = range(index[0].start, index[0].stop)
  for place, layer in enumerate(layers):
    own = Name(name.path, layer)
    out[place] = _checked(own, fetch(own, index[1:]), out.shape[1:])
  return out


def _checked(name: Name, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  if x.shape != tuple(shape):
    raise ValueError(
      f'{"/".join(name.path)} of layer {name.layer}: the checkpoint has '
      f'{x.shape} where its config asks for {tuple(shape)}.'
    )
  return x


def _leaves(config: LMConfig) -> list[tuple[Any, Any]]:
  boxed = jax.eval_shape(decoder.init_fn(config), jax.random.key(0))
  return jax.tree_util.tree_flatten_with_path(nn.meta.unbox(boxed))[0]


def _name(path: Any) -> Name:
  first, *rest = (part.key for part in path)
  if first == 'layers':
    return Name(tuple(rest), 0)
  if first.startswith('layers_'):
    return Name(tuple(rest), int(first.removeprefix('layers_')))
  return Name((first, *rest), None)


def get(config: LMConfig, params: Any, name: Name) -> Any:
  """Returns one tensor of the parameters, as our layout has it."""
  path = name.path
  if name.layer is not None:
    path = ('layers' if config.scan else f'layers_{name.layer}', *path)
  for key in path:
    params = params[key]
  stacked = config.scan and name.layer is not None
  return params[name.layer] if stacked else params
