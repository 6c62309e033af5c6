"""All stages in under two minutes: does everything run? It learns little.

    python -m launch.pipeline --config=configs/tiny.py --workdir=DIR

Real data (MovieLens-100K) and real text embeddings, a decoder of 0.2 million
parameters and a few steps of each stage. Switches: `seed=0`;
`answer=likelihood`, or `answer=list` for lists that are written token by token,
the paper's way, with a second round of RL; `teacher=rules`, `endpoint` or
`local`, who writes the traces (gr2_jax/teacher/README.md).
"""

from configs import common


def get_config(arg: str = ''):
  """Returns the config; `arg` are the switches after the colon."""
  switches = common.parse_switches(
    arg, seed=0, answer='likelihood', teacher='rules'
  )
  config = common.base()
  config.seed = switches.seed
  config.data.name = 'ml-100k'
  config.data.kind = 'ml-100k'
  config.data.split.update(kind='last_n', n_test=2, n_valid=1, n_train=2)
  config.sid.codes = 32
  config.sid.epochs = 20
  config.sid.warmup_epochs = 5
  config.sid.max_length = 32
  config.text.pieces = 1500
  config.text.prompt.history_items = 3
  config.text.prompt.max_tokens = 288
  config.lm.width = 64
  config.lm.layers = 2
  config.lm.head_dim = 16
  config.lm.mlp_dim = 128
  config.midtrain.new_rows.steps = 5
  config.midtrain.all.steps = 40
  config.midtrain.all.ckpt_every = 20
  config.sft.train.steps = 20
  config.sft.train.ckpt_every = 10
  config.sft.lists = 8
  config.sft.explained = config.sft.distilled = 4
  config.candidates.sasrec.update(max_epochs=2, width=32, layers=1)
  config.rl.steps = 4
  config.rl.lr = 1e-3
  config.rl.prompts_per_step = 4
  config.rl.group_size = 4
  config.rl.lists_per_step = 16
  config.rl.rankings = 8
  config.rl.explained_per_step = 8
  config.rl.updates_per_rollout = 4
  config.rl.checkpoint_every = 2
  config.answer.ranking = switches.answer
  config.direct.steps = 2 if switches.answer == 'list' else 0
  common.choose_teacher(config, switches.teacher)
  return config
