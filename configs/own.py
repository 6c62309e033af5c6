"""A catalogue of your own, with sizes that fit its counts.

    python -m launch.pipeline --config=configs/own.py \
        --config.data.dir=DIR --workdir=runs/own

DIR holds items and interactions (gr2_jax/data/README.md); for raw
Amazon files of 2014 add `--config.data.kind=amazon2014`.

What depends on the data is None here: semantic IDs, model, mid-training, SASRec
and what is held out. The command reads and filters the data first, chooses what
is still None (rules: `gr2_jax/run/size_rules.py`), and prints each choice as
the flag that would set it, then the minutes and the memory that the run takes,
before anything runs. What you set stays: `--config.lm.width=128`. With
`--describe` and `--config.data.dir` it chooses, prints and ends.

Switches: `seed=0`; `teacher=rules`, `endpoint` or `local`, who writes the
traces (gr2_jax/teacher/README.md).
"""

from configs import common
from gr2_jax import experiment


def get_config(arg: str = ''):
  """Returns the config; `arg` are the switches after the colon."""
  switches = common.parse_switches(arg, seed=0, teacher='rules')
  config = common.base()
  config.seed = switches.seed
  common.choose_teacher(config, switches.teacher)
  experiment.unset(config)
  return config
