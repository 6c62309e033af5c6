"""Runs the GR2 pipeline, from raw interactions to the report of a re-ranker.

    python -m launch.pipeline --config=configs/quickstart.py --workdir=DIR

Finished stages are skipped and interrupted ones resume. What can be checked is
checked before the first stage runs, and a start that is refused changes
nothing. Refused are: finished stages that do not fit the config or what they
read, which the message lists with what changed, unless `--redo` makes them
again; an interrupted stage with checkpoints of another config, unless `--force`
continues from them, or `--redo` starts it again; and a workdir in which another
run is active. SIGTERM and Ctrl-C save, end the run with exit code 75 or 130,
and the same command resumes it.

The stages, for `--stages`, are data, sid, midtrain, candidates, traces, sft,
rl, direct and evaluate. Any setting can be overridden: `--describe` prints them
all, and the docstring of a config names its switches, which stand behind a
colon (configs/beauty.py:seed=1). The main settings:

    --config.data.dir=DIR             data of your own (configs/own.py)
    --config.seed=0                   of all that is drawn
    --config.lm.pretrained=MODEL      a model to start from
    --config.midtrain.all.steps=1500  steps of mid-training
    --config.sft.train.steps=400      steps of fine-tuning
    --config.rl.steps=8               steps of RL
    --config.traces.teacher=rules     who explains lists: rules, endpoint, local
    --config.mesh.fsdp=1              devices that split parameters
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from launch import cli, cluster, start

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with switches after a colon.', lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of the run: one folder a stage, and the report.'
)
_STAGES = flags.DEFINE_list(
  'stages', [], 'Only these stages, in pipeline order (default: all).'
)
_FORCE = flags.DEFINE_bool(
  'force', False, 'Continue from checkpoints made with another config.'
)
_REDO = flags.DEFINE_bool(
  'redo',
  False,
  'Make stages again that do not fit the config or what they read; what they '
  'wrote is deleted.',
)
_INSIST = flags.DEFINE_bool(
  'insist',
  False,
  'Traces: continue though the first answers of a language model are all '
  'rejected in one way.',
)
_PROFILE = flags.DEFINE_string(
  'profile',
  '',
  'START:STOP, the first and the last step of which each training that runs '
  'writes an XProf trace, to profile/ in its folder.',
)
_DESCRIBE = flags.DEFINE_bool(
  'describe',
  False,
  'Print every setting with its value, default, source and meaning, and end.',
)
flags.mark_flag_as_required('config')
flags.adopt_module_key_flags(cluster)


@flags.multi_flags_validator(
  ['workdir', 'describe'], 'Give --workdir, the directory of the run.'
)
def _has_workdir(given) -> bool:
  return bool(given['workdir'] or given['describe'])


def main(argv) -> None:
  """Runs the stages asked for."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}; use --stages=a,b.')
  if _DESCRIBE.value:
    _describe(_CONFIG.value)
    return
  from gr2_jax import experiment
  from gr2_jax.stages import pipeline

  start.set_up()
  cluster.join()
  config = experiment.fill(_CONFIG.value)
  if _INSIST.value:
    config.endpoint.insist = True
  if _PROFILE.value:
    config.tracking.profile = _PROFILE.value
  workdir = pathlib.Path(_WORKDIR.value).expanduser().absolute()
  pipeline.run(config, workdir, _STAGES.value, _FORCE.value, _REDO.value)


def _describe(config) -> None:
  """Prints the settings; those that the data choose too, where these are."""
  from gr2_jax import describe, experiment

  if config.data.dir:
    start.set_up()
    config = experiment.fill(config)
  print(describe.table(describe.settings(config)))


if __name__ == '__main__':
  cli.run(main)
