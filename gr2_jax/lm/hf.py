"""Model directories of Hugging Face: `config.json` and safetensors, in and out.

Tensors are read and written one by one; of a sharded parameter a host reads
only the parts that it holds. The tokenizer beside them is
`text/pretrained.py`'s.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import logging

from gr2_jax import files, sharding
from gr2_jax.lm import hf_config, layout, tensor_files
from gr2_jax.lm.config import LMConfig

_EMBEDDING, _HEAD = 'model.embed_tokens.weight', 'lm_head.weight'
# Rows of a table that are compared at a time.
_ROWS = 4096
_TABLES = {
  ('embedding',): _EMBEDDING,
  ('output',): _HEAD,
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

  As transformers does, `model.safetensors` is taken where there is an index
  beside it, and a head in the files of a tied model is kept where it differs
  from the token table; a warning tells of either.

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
    ValueError: a model that this decoder cannot compute, a file that cannot be
      read, or tensors that do not fit the config.
  """
  directory = pathlib.Path(directory)
  config = read_config(directory, **settings)
  mesh = sharding.make_mesh() if mesh is None else mesh
  with contextlib.ExitStack() as stack:
    tensors = tensor_files.open_all(directory, stack)
    config = _untied(config, tensors, directory)
    _check(config, tensors, directory)

    def fetch(name: layout.Name, index: tuple[slice, ...]) -> np.ndarray:
      key = tensor_name(name)
      part = tensors[key].get_slice(key)
      turned = name.path[-1] == 'kernel'
      x = part[index[::-1] if turned else index]
      tensor_files.finite(x, key, directory)
      return x.T if turned else x

    return config, layout.place(config, mesh, rules, fetch)


def read_config(directory: pathlib.Path | str, **settings: Any) -> LMConfig:
  """Reads the shape of a model and none of its tensors; see `load`."""
  path = pathlib.Path(directory) / 'config.json'
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} is missing: give the directory of a Hugging Face model.'
    )
  raw = files.read_object(path)
  try:
    return hf_config.from_json(raw, **settings)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


def _untied(
  config: LMConfig, tensors: Mapping[str, Any], directory: pathlib.Path
) -> LMConfig:
  """Unties the head of a tied model whose files have another one."""
  if not config.tie_embeddings or not {_HEAD, _EMBEDDING} <= set(tensors):
    return config
  head, table = (tensors[k].get_slice(k) for k in (_HEAD, _EMBEDDING))
  shape = table.get_shape()
  parts = [
    slice(row, min(row + _ROWS, shape[0])) for row in range(0, shape[0], _ROWS)
  ]
  if head.get_shape() == shape and all(
    np.array_equal(head[part], table[part]) for part in parts
  ):
    return config
  logging.warning(
    '%s says tie_word_embeddings = true, but %s and %s differ: they are kept '
    'apart, as transformers does. Set it to false to silence this.',
    directory / 'config.json',
    _HEAD,
    _EMBEDDING,
  )
  return dataclasses.replace(config, tie_embeddings=False)


def _check(
  config: LMConfig, tensors: Mapping[str, Any], directory: pathlib.Path
) -> None:
  if config.layers > len(tensors):
    raise ValueError(
      f'{directory / "config.json"} asks for {config.layers} layers, and the '
      f'files hold {len(tensors)} tensors in all, many are missing: fetch the '
      'model again.'
    )
  wanted = {tensor_name(name) for name, _ in layout.names(config)}
  missing = sorted(wanted - set(tensors))
  # A tied model may carry the output projection a second time.
  known = wanted | ({_HEAD} if config.tie_embeddings else set())
  unknown = sorted(
    name for name in set(tensors) - known if not name.endswith(_BUFFER)
  )
  if missing or unknown:
    raise ValueError(
      f'The tensors in {directory} do not fit its config.json: missing '
      f'{missing[:5]} ({len(missing)} in all), not known here {unknown[:5]} '
      f'({len(unknown)} in all): fetch config.json and weights of one model.'
    )
  for name, shape in layout.names(config):
    key = tensor_name(name)
    part = tensors[key].get_slice(key)
    shape = shape[::-1] if name.path[-1] == 'kernel' else shape
    if tuple(part.get_shape()) != shape:
      raise ValueError(
        f'{directory}: tensor {key!r} is {tuple(part.get_shape())}, where '
        f'config.json asks for {shape}: fetch both again.'
      )
    if part.get_dtype() not in tensor_files.TYPES:
      raise ValueError(
        f'{directory}: tensor {key!r} is of type {part.get_dtype()}, not one '
        f'of {tensor_files.TYPES}: export the model unquantised.'
      )


def save(
  directory: str | pathlib.Path,
  config: LMConfig,
  params: Any,
  *,
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
    for old in (
      *directory.glob('model*.safetensors'),
      directory / tensor_files.INDEX,
    ):
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
    (directory / name).replace(directory / tensor_files.WHOLE)
  else:
    index = {'metadata': {'total_size': total}, 'weight_map': where}
    files.write_json(directory / tensor_files.INDEX, index)
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
