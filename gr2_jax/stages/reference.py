"""The models beside the policy in RL: what it starts from, and the reference.

`rl.start` names a stage. `rl.reference` names the SFT stage or a directory that
`lm/io.py` wrote, in this run or in another one of the same vocabulary.
"""

import hashlib
import pathlib
from typing import Any

import jax
import ml_collections

from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.lm import io
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl.config import RLConfig
from gr2_jax.stages import artifacts

_STAGE = 'sft'


def inputs(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """Returns the stages that RL reads; SFT only where a model of it is used."""
  cfg = config_lib.build(RLConfig, config.rl)
  stages = ('data', 'sid', 'midtrain', 'candidates')
  return (*stages, _STAGE) if _STAGE in (cfg.start, cfg.reference) else stages


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """Identifies a reference outside the run: its shape, and sizes of its files.

  Args:
    config: of the run.

  Returns:
    A hash; empty where there is no such reference.

  Raises:
    FileNotFoundError: no complete model lies there.
  """
  cfg = config_lib.build(RLConfig, config.rl)
  if cfg.reference in ('', _STAGE):
    return ''
  directory = pathlib.Path(cfg.reference).expanduser()
  found = hashlib.sha256(io.read_config(directory).encode())
  for file in sorted(directory.rglob('*')):
    if file.is_file():
      name = file.relative_to(directory)
      found.update(f'{name} {file.stat().st_size}\n'.encode())
  return found.hexdigest()


def load(
  cfg: RLConfig, store: artifacts.Artifacts, mesh: jax.sharding.Mesh
) -> tuple[LMConfig, Any] | None:
  """Reads the reference model onto the mesh.

  Args:
    cfg: names it.
    store: the run's artifacts.
    mesh: the mesh.

  Returns:
    (shape, parameters), or None where the settings name none.
  """
  if not cfg.reference:
    return None
  directory = pathlib.Path(cfg.reference).expanduser()
  if cfg.reference == _STAGE:
    directory = store.model(_STAGE)
  return io.load(directory, mesh, sharding.TRAIN_RULES)
