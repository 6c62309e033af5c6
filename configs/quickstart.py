"""MovieLens-100K on two CPU cores, from nothing, in about half an hour.

    bash launch/quickstart.sh [WORKDIR]
    python -m launch.pipeline --config=configs/quickstart.py --workdir=DIR

Switches: `seed=0`; `alpha=0.02`, weight of the format reward;
`conditional=true` (false pays the format for copying the input order);
`mode=rejection` or `targeted` traces; `teacher=rules`, `endpoint` or `local`,
who writes them (gr2_jax/teacher/README.md).

Expected: NDCG@5 of `rl` 0.472 +-0.010, of the incoming order 0.395 +-0.008, of
the linear model 0.464 +-0.007 (three seeds, results/quickstart.md).
"""

from configs import common


def get_config(arg: str = ''):
  """Returns the config; `arg` are the switches after the colon."""
  switches = common.parse_switches(
    arg,
    seed=0,
    alpha=0.02,
    conditional=True,
    mode='rejection',
    teacher='rules',
  )
  config = common.base()
  config.seed = switches.seed
  config.rl.alpha = switches.alpha
  config.rl.conditional = switches.conditional
  config.traces.mode = switches.mode
  # The whole list, discounted as the metric is.
  config.rl.reward, config.rl.credit = 'ndcg', 'answer'
  config.data.name = 'ml-100k'
  config.data.kind = 'ml-100k'
  # Few users with long histories: several held-out positions each.
  config.data.split.update(kind='last_n', n_test=6, n_valid=3, n_train=40)
  config.sid.codes = 64
  config.midtrain.all.steps = 2000
  config.midtrain.all.dropout = 0.05
  # Validation is flat from about epoch 26 on.
  config.candidates.sasrec.update(max_epochs=28, every=4)
  common.choose_teacher(config, switches.teacher)
  return config
