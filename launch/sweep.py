r"""Runs a sweep: one config, many changes, several seeds, and a table.

    python -m launch.sweep --config=configs/sid_ablation.py:data=ml-100k \
        --workdir=runs/sid_ablation --output=results/sid_ablation.json

    python -m launch.sweep --config=configs/quickstart.py --seeds=0,1,2 \
        --workdir=runs/quickstart_seeds

The second is one config with several seeds, pooled: means with their deviation,
and differences over the lists of all seeds with their intervals. Every run has
its own directory below the workdir; a sweep that was cut off continues where it
stopped; `--redo` makes finished stages again that do not fit a changed config.

Any setting of `launch.pipeline` changes all runs: of a sweep as
`--config.base.KEY=VALUE`, such as `--config.base.data.dir=DIR`, of one config
as `--config.KEY=VALUE`. The stages are those that a sweep names, of one config
all.
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from launch import cli, cluster, start

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Sweep, with switches after a colon.', lock_config=True
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the runs.')
_OUTPUT = flags.DEFINE_string(
  'output', '', 'Where to keep sweep.json, too; and of its curves two as SVG.'
)
_SEEDS = flags.DEFINE_list(
  'seeds', [], 'Seeds of a config that is no sweep; a sweep has its own.'
)
_REDO = flags.DEFINE_bool(
  'redo', False, 'Make finished stages again that do not fit the config.'
)
flags.mark_flags_as_required(['config', 'workdir'])
flags.adopt_module_key_flags(cluster)


def main(argv) -> None:
  """Makes the runs and prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax import experiment, files, processes
  from gr2_jax.report import sweeps
  from gr2_jax.stages import sweep

  start.set_up()
  cluster.join()
  workdir = pathlib.Path(_WORKDIR.value).expanduser().absolute()
  config = _CONFIG.value
  if 'runs' not in config:
    if not _SEEDS.value:
      raise app.UsageError('This config is no sweep: give its --seeds=0,1,2.')
    whole = experiment.fill(config)
    config = sweep.of_seeds(whole, [int(seed) for seed in _SEEDS.value])
  elif _SEEDS.value:
    raise app.UsageError('This sweep sets its seeds itself: leave out --seeds.')
  document = sweep.run(config, workdir, _REDO.value)
  if not processes.is_first():
    return
  if _OUTPUT.value:
    output = pathlib.Path(_OUTPUT.value).expanduser()
    output.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(output, document)
    if document['runs'][0].get('curves'):
      shown = config.curves[:2]
      picture = sweeps.picture(document, shown)
      files.atomic_write(output.with_suffix('.svg'), picture)
  print(sweep.table(document))
  page = workdir / 'sweep.html'
  if page.exists():
    print(f'\nCurves: {page}')


if __name__ == '__main__':
  cli.run(main)
