"""MovieLens-100K with more lists and steps than the quickstart.

    python -m launch.pipeline --config=configs/ml100k.py --workdir=DIR

Twice as many training lists, and longer training on them; the retriever learns
from less. Switches: those of `configs/quickstart.py`.

Expected: NDCG@5 of `rl` 0.503, of the incoming order 0.377, of the linear model
0.490 (mean of three seeds, results/quickstart.md).
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
