"""Runs the GR2 road, from raw interactions to the report of a re-ranker.

    python -m launch.pipeline --config=configs/quickstart.py --workdir=DIR

Finished stages are skipped, interrupted ones resume, and a stage whose config
or inputs changed is done anew. The stages are data, sid, midtrain, candidates,
traces, sft, rl and evaluate. Any setting can be overridden, for example
`--config.rl.alpha=0`; the docstring of a config names its switches.
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from launch import cluster, start

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with switches after a colon.', lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of the run: one folder a stage, and the report.'
)
_STAGES = flags.DEFINE_list(
  'stages', [], 'Only these stages, in the order of the road (default: all).'
)
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv) -> None:
  """Runs the stages asked for."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}; use --stages=a,b.')
  from gr2_jax.stages import road

  start.set_up()
  cluster.join()
  workdir = pathlib.Path(_WORKDIR.value).absolute()
  road.run(_CONFIG.value, workdir, _STAGES.value)


if __name__ == '__main__':
  app.run(main)
