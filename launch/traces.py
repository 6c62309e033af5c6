r"""Shows what a teacher would be asked, and then asks it.

    python -m launch.traces --config=configs/beauty.py:teacher=endpoint \
        --workdir=DIR --dry_run --price_in=0.10 --price_out=0.40

prints one full prompt of each kind, how many tokens it has, how many requests
the run would make, and what they would cost, without a request or a key.
Without `--dry_run` it runs the traces stage alone. The stages before it must be
finished (`launch.pipeline --stages=data,sid,midtrain,candidates`). `--redo`
makes traces again that are finished with another config. The main settings:

    --config.traces.model=MODEL       who answers, by the server's name for it
    --config.endpoint.url=URL         the server, up to /v1
    --config.traces.mode=rejection    or targeted
    --config.traces.keep=0.2          the best share, which SFT learns from
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from launch import cli, start

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with switches after a colon.', lock_config=True
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run.')
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Print prompts and numbers, and send no request.'
)
_REDO = flags.DEFINE_bool(
  'redo', False, 'Make finished traces again that do not fit the config.'
)
_INSIST = flags.DEFINE_bool(
  'insist',
  False,
  'Continue though the first answers of the teacher are all rejected in one '
  'way.',
)
_PRICE_IN = flags.DEFINE_float(
  'price_in', 0.0, 'Of a million tokens that the teacher reads.', lower_bound=0
)
_PRICE_OUT = flags.DEFINE_float(
  'price_out', 0.0, 'Of a million tokens that it writes.', lower_bound=0
)
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv) -> None:
  """Describes the stage, or runs it."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax import experiment
  from gr2_jax.stages import dry_run, pipeline

  start.set_up()
  config = experiment.fill(_CONFIG.value)
  if _INSIST.value:
    config.endpoint.insist = True
  workdir = pathlib.Path(_WORKDIR.value).expanduser().absolute()
  if not _DRY_RUN.value:
    pipeline.run(config, workdir, ['traces'], redo=_REDO.value)
    return
  prices = _PRICE_IN.value, _PRICE_OUT.value
  print(dry_run.describe(config, workdir, *prices))


if __name__ == '__main__':
  cli.run(main)
