"""Writes and reads a model: its config as JSON, its parameters by Orbax."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from gr2_jax import config as config_lib
from gr2_jax import files, processes, sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig

_CONFIG = 'lm_config.json'


def save(directory: pathlib.Path, config: LMConfig, params: Any) -> None:
  """Writes a model; `lm_config.json` comes last and marks it complete.

  All processes of a run call it together.

  Args:
    directory: where to; a model that lies there is replaced.
    config: its shape.
    params: its parameters, sharded or not.
  """
  directory = pathlib.Path(directory).absolute()
  directory.mkdir(parents=True, exist_ok=True)
  processes.on_first((directory / _CONFIG).unlink, missing_ok=True)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(directory / 'params', params, force=True)
  text = json.dumps(dataclasses.asdict(config), indent=2) + '\n'
  processes.on_first(files.atomic_write, directory / _CONFIG, text)


def exists(directory: pathlib.Path) -> bool:
  """Returns whether a complete model lies in a directory."""
  return (pathlib.Path(directory) / _CONFIG).exists()


def read_config(directory: pathlib.Path) -> str:
  """Returns the JSON of a model's `LMConfig`.

  Args:
    directory: of the model.

  Raises:
    FileNotFoundError: no complete model lies there.
  """
  return json.dumps(_raw(directory), indent=2) + '\n'


def _raw(directory: pathlib.Path) -> dict[str, Any]:
  if not exists(directory):
    raise FileNotFoundError(
      f'No complete model in {directory} ({_CONFIG} is missing): run the '
      'stage that writes it.'
    )
  return files.read_object(pathlib.Path(directory) / _CONFIG)


def load(
  directory: pathlib.Path, mesh: jax.sharding.Mesh, rules: sharding.Rules
) -> tuple[LMConfig, Any]:
  """Reads a model that `save` wrote onto a mesh.

  Args:
    directory: of the model.
    mesh: any mesh, not only the one it was trained on.
    rules: TRAIN_RULES or DECODE_RULES.

  Returns:
    (config, params sharded as the rules say).

  Raises:
    FileNotFoundError: no complete model lies there.
    ValueError: a file of it is damaged.
  """
  directory = pathlib.Path(directory).absolute()
  raw = _raw(directory)
  try:
    config = config_lib.build(LMConfig, raw)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{directory / _CONFIG} is damaged, or of another version ({error}): '
      'make the stage again, or copy the run again.'
    ) from error
  shapes, shardings = sharding.param_shardings(
    decoder.init_fn(config), mesh, rules, jax.random.key(0)
  )
  target = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      return config, checkpointer.restore(directory / 'params', target)
  except Exception as error:  # Orbax and TensorStore raise many classes.
    raise ValueError(
      f'{directory / "params"} cannot be read, or is not of the model that '
      f'{_CONFIG} beside it describes: {error}. Make the stage again, or copy '
      'the run again.'
    ) from error


def load_for_decoding(
  directory: pathlib.Path, mesh: jax.sharding.Mesh
) -> tuple[LMConfig, Any]:
  """Reads a model as all that decodes has it.

  Args:
    directory: of the model.
    mesh: any mesh.

  Returns:
    (config, params by DECODE_RULES with narrow kernels: `decoder.narrow`).

  Raises:
    FileNotFoundError: no complete model lies there.
  """
  return decoder.narrow(*load(directory, mesh, sharding.DECODE_RULES))
