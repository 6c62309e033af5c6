"""The models beside the policy in RL: what it starts from, and the reference.

`rl.start` names a stage. `rl.reference` names the SFT stage or a directory that
`lm/io.py` wrote, in this run or in another one of the same vocabulary. The KL
to it runs over whole distributions, so that it is the same for DAPO's reference
and for a teacher; each group is read once, in the update, beside the policy.
"""

import filecmp
import hashlib
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, sharding
from gr2_jax.lm import foreign, io
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl.config import RLConfig
from gr2_jax.run import artifacts

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

  Raises:
    ValueError: the model stands in a run of other semantic IDs or another
      vocabulary.
  """
  if not cfg.reference:
    return None
  directory = pathlib.Path(cfg.reference).expanduser()
  if cfg.reference == _STAGE:
    directory = store.model(_STAGE)
  _check_run(directory.absolute().parents[1], store)
  shape, params = io.load(directory, mesh, sharding.TRAIN_RULES)
  foreign.check_rows(directory, store.vocab.size, shape.vocab_size)
  return shape, params


def _check_run(other: pathlib.Path, store: artifacts.Artifacts) -> None:
  """Refuses a run whose tokens mean something else, if `other` is a run."""
  differs = []
  sids = other / 'sid' / 'sids.npz'
  if sids.exists():
    if not np.array_equal(files.read_npz(sids, 'sids')['sids'], store.sids):
      differs.append('semantic IDs')
  vocab, own = (run / 'midtrain' / 'vocab' for run in (other, store.workdir))
  if vocab.exists():
    names = {path.name for folder in (vocab, own) for path in folder.iterdir()}
    _, changed, missing = filecmp.cmpfiles(vocab, own, names, shallow=False)
    if changed or missing:
      differs.append('vocabulary')
  if differs:
    raise ValueError(
      f'rl.reference: {other} has other {" and ".join(differs)} than '
      f'{store.workdir}, so its tokens mean something else: give a model of a '
      'run with the same data, semantic IDs and vocabulary.'
    )
