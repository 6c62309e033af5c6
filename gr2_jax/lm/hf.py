"""Model directories of Hugging Face: `config.json` and safetensors, in and out.

Tensors are read and written one by one; of a sharded parameter a host reads
only the parts that it holds. The tokenizer beside them is
`text/pretrained.py`'s.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from gr2_jax import files, sharding
from gr2_jax.lm import hf_config, layout
from gr2_jax.lm.config import LMConfig

_INDEX = 'model.safetensors.index.json'
_TABLES = {
  ('embedding',): 'model.embed_tokens.weight',
  ('output',): 'lm_head.weight',
  ('final_norm', 'scale'): 'model.norm.weight',
}
_MODULES = {
  ('attention', 'query'): 'self_attn.q_proj',
  ('attention', 'key'): 'self_attn.k_proj',
  ('attention', 'value'): 'self_attn.v_proj',
  ('attention', 'out'): 'self_attn.o_proj',
  ('attention', 'query_norm'): 'self_attn.q_norm',
  ('attention', 'key_norm'): 'self_attn.k_norm',
  ('attention_norm',): 'input_layernorm',
  ('mlp_norm',): 'post_attention_layernorm',
  ('mlp', 'gate'): 'mlp.gate_proj',
  ('mlp', 'up'): 'mlp.up_proj',
  ('mlp', 'down'): 'mlp.down_proj',
}
_KINDS = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
# Of old checkpoints: the rotary frequencies, which the config says as well.
_BUFFER = '.rotary_emb.inv_freq'
_TYPES = ('F32', 'F16', 'BF16', 'F64')


def tensor_name(name: layout.Name) -> str:
  """Returns what transformers calls a tensor."""
  if name.layer is None:
    return _TABLES[name.path]
  *module, kind = name.path
  return f'model.layers.{name.layer}.{_MODULES[tuple(module)]}.{_KINDS[kind]}'


def load(
  directory: str | pathlib.Path,
  mesh: jax.sharding.Mesh | None = None,
  rules: sharding.Rules = sharding.TRAIN_RULES,
  **settings: Any,
) -> tuple[LMConfig, Any]:
  """Reads a model onto a mesh.

  Args:
    directory: with `config.json` and `model.safetensors`, or shards with
      `model.safetensors.index.json`.
    mesh: all devices by default, the batch split over them.
    rules: TRAIN_RULES or DECODE_RULES.
    **settings: fields of `config.RUNTIME`, such as `scan=True` or
      `param_dtype='bfloat16'`.

  Returns:
    (shape of the model, its parameters, sharded as the rules say).

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a model that this decoder cannot compute, or tensors that do not
      fit its config.
  """
  directory = pathlib.Path(directory)
  config = read_config(directory, **settings)
  mesh = sharding.make_mesh() if mesh is None else mesh
  with contextlib.ExitStack() as stack:
    tensors = _open(directory, stack)
    _check(config, tensors, directory)

    def fetch(name: layout.Name, index: tuple[slice, ...]) -> np.ndarray:
      key = tensor_name(name)
      part = tensors[key].get_slice(key)
      if name.path[-1] == 'kernel':
        return part[index[::-1]].T
      return part[index]

    return config, layout.place(config, mesh, rules, fetch)


def read_config(directory: pathlib.Path | str, **settings: Any) -> LMConfig:
  """Reads the shape of a model and none of its tensors; see `load`."""
  path = pathlib.Path(directory) / 'config.json'
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} is missing: give the directory of a Hugging Face model.'
    )
  return hf_config.from_json(files.read_json(path), **settings)


def _open(directory: pathlib.Path, stack: contextlib.ExitStack) -> dict:
  """Opens the tensor files: name of a tensor -> its file."""
  if (directory / _INDEX).is_file():
    weights = files.read_json(directory / _INDEX)['weight_map']
    names = sorted(set(weights.values()))
  else:
    names = ['model.safetensors']
  found = {}
  for name in names:
    if not files.is_plain_name(name):
      raise ValueError(
        f'{directory / _INDEX} names the file {name!r}: all files of a model '
        'lie in its directory. Fetch the model from a source you trust.'
      )
    path = directory / name
    if not path.is_file():
      raise FileNotFoundError(
        f'{path} is missing: give a directory with model.safetensors, or with '
        f'{_INDEX} and all files that it names.'
      )
    opened = stack.enter_context(safetensors.safe_open(path, 'numpy'))
    found |= dict.fromkeys(opened.keys(), opened)
  return found


def _check(
  config: LMConfig, tensors: Mapping[str, Any], directory: pathlib.Path
) -> None:
  wanted = {tensor_name(name) for name, _ in layout.names(config)}
  missing = sorted(wanted - set(tensors))
  # A tied model may carry the output projection a second time.
  known = wanted | ({'lm_head.weight'} if config.tie_embeddings else set())
  unknown = sorted(
    name for name in set(tensors) - known if not name.endswith(_BUFFER)
  )
  if missing or unknown:
    raise ValueError(
      f'The tensors in {directory} do not fit its config.json: missing '
      f'{missing[:5]} ({len(missing)} in all), not known here {unknown[:5]} '
      f'({len(unknown)} in all).'
    )
  for name, shape in layout.names(config):
    key = tensor_name(name)
    part = tensors[key].get_slice(key)
    shape = shape[::-1] if name.path[-1] == 'kernel' else shape
    if tuple(part.get_shape()) != shape:
      raise ValueError(
        f'Tensor {key!r} is {tuple(part.get_shape())}, where config.json asks '
        f'for {shape}.'
      )
    if part.get_dtype() not in _TYPES:
      raise ValueError(
        f'Tensor {key!r} is of type {part.get_dtype()}, not one of {_TYPES}: '
        'export the model unquantised.'
      )


def save(
  directory: str | pathlib.Path,
  config: LMConfig,
  params: Any,
  special: Mapping[str, int] | None = None,
  dtype: Literal['float32', 'bfloat16'] = 'float32',
  max_file_bytes: int = 2 * 2**30,
) -> None:
  """Writes a directory that `transformers.AutoModelForCausalLM` reads.

  All processes of a run call it together; the first one writes.

  Args:
    directory: where to; tensors of a model that lies there are replaced.
    config: shape of the model, without LoRA (see `lora.merge`).
    params: its parameters, sharded or not.
    dtype: of all tensors in the files.
    special: `bos_token_id`, `eos_token_id` and `pad_token_id`, for
      `config.json` and `generation_config.json`.
    max_file_bytes: size of a tensor file, which is held in memory while it is
      gathered.

  Raises:
    ValueError: no family of Hugging Face models is like this one.
  """
  special = dict(special or {})
  raw = hf_config.to_json(config, dtype) | special
  directory = pathlib.Path(directory)
  writes = jax.process_index() == 0
  if writes:
    directory.mkdir(parents=True, exist_ok=True)
    for old in (*directory.glob('model*.safetensors'), directory / _INDEX):
      old.unlink(missing_ok=True)
  where, total = {}, 0
  for number, tensors in enumerate(
    _files(config, params, dtype, max_file_bytes)
  ):
    name = f'model-{number + 1:05}.safetensors'
    where |= dict.fromkeys(tensors, name)
    total += sum(x.nbytes for x in tensors.values())
    if writes:
      safetensors.numpy.save_file(
        tensors, directory / name, metadata={'format': 'pt'}
      )
  if not writes:
    return
  if len(set(where.values())) == 1:
    (directory / name).replace(directory / 'model.safetensors')
  else:
    index = {'metadata': {'total_size': total}, 'weight_map': where}
    files.write_json(directory / _INDEX, index)
  if special:
    files.write_json(directory / 'generation_config.json', special)
  files.atomic_write(
    directory / 'config.json', json.dumps(raw, indent=2, sort_keys=True) + '\n'
  )


def _files(
  config: LMConfig, params: Any, dtype: str, most: int
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the tensors, as many as go into one file at a time."""
  tensors, size = {}, 0
  for name, _ in layout.names(config):
    x = _whole(layout.get(config, params, name))
    x = x.T if name.path[-1] == 'kernel' else x
    x = np.ascontiguousarray(x.astype(jnp.dtype(dtype)))
    if tensors and size + x.nbytes > most:
      yield tensors
      tensors, size = {}, 0
    tensors[tensor_name(name)] = x
    size += x.nbytes
  yield tensors


def _whole(x: Any) -> np.ndarray:
  """Brings an array to this host, wherever its parts lie."""
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    x = sharding.replicate(x.sharding.mesh, x)
  return np.asarray(x)
