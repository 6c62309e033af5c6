"""MovieLens-100K with more lists and steps than the quickstart.

    python -m launch.pipeline --config=configs/ml100k.py --workdir=DIR

Twice as many training lists, and longer training on them. No result of it is
kept in `results/` yet. Switches: those of `configs/quickstart.py`.
"""

from configs import quickstart


def get_config(arg: str = ''):
  """Returns the config; `arg` are the switches after the colon."""
  config = quickstart.get_config(arg)
  config.data.split.n_train = 80
  config.midtrain.all.steps = 3000
  config.midtrain.all.dropout = 0.1
  config.sft.train.steps = 600
  config.rl.steps = 16
  return config
