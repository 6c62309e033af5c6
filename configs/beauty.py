"""Amazon Beauty 2014 (5-core), leave-one-out, a 6 M decoder from scratch.

    python -m launch.pipeline --config=configs/beauty.py \
        --config.data.dir=DIR --workdir=runs/beauty

DIR holds `items.jsonl` and `interactions.csv` (gr2_jax/data/README.md); with
`--config.data.kind=amazon2014` the raw `reviews_Beauty_5.json.gz` and
`meta_Beauty.json.gz`.

Switches: `seed=0`; `literature` (no re-rank training targets: the retriever
trains on everything before validation, as published retrieval numbers do; run
it with `--stages=data,sid,midtrain,candidates`: Recall@10 0.073, 43 minutes on
two cores); `source=lm` or `sasrec`, who makes the candidate lists;
`teacher=rules`, `endpoint` or `local`, who writes the traces
(gr2_jax/teacher/README.md): see what it would be asked by

    python -m launch.traces --config=configs/beauty.py:teacher=endpoint \
        --config.data.dir=DIR --workdir=runs/beauty --dry_run
"""

from configs import common


def get_config(arg: str = ''):
  """Returns the config; `arg` are the switches after the colon."""
  switches = common.parse_switches(
    arg, seed=0, literature=False, source='lm', teacher='rules'
  )
  config = common.base()
  config.seed = switches.seed
  config.data.name = 'beauty'
  config.data.split.n_train = 0 if switches.literature else 1
  config.candidates.source = switches.source
  # Folds' lists serve the evidence's weights alone: two more trainings of
  # SASRec are worth it, two more mid-trainings of an hour are not. Retrieval
  # alone has no use for training lists.
  cheap = switches.source == 'sasrec' and not switches.literature
  config.candidates.folds = 2 if cheap else 0
  config.sid.epochs = 60
  config.sid.batch_size = 512
  # Items that are bought together come close: it may help retrieval.
  config.sid.contrastive = 0.05
  config.text.pieces = 4000
  config.text.prompt.max_tokens = 480
  config.lm.width = 256
  config.lm.layers = 6
  config.lm.heads = 8
  config.lm.kv_heads = 4
  config.lm.head_dim = 32
  config.lm.mlp_dim = 768
  config.midtrain.weights = {
    'next_item': 0.8,
    'persona': 0.05,
    'item_text': 0.14,
    'general_text': 0.01,
  }
  # Rows of 128 train 20 to 30 % more tokens a second than rows of 256.
  config.midtrain.all.length = 128
  config.midtrain.all.steps = 5000
  config.midtrain.all.batch_size = 32
  config.midtrain.all.microbatches = 4
  config.midtrain.all.lr = 2e-3
  config.midtrain.all.dropout = 0.2
  config.sft.train.length = 704
  # A thousand lists hold their target, twenty times as many do not: with 16 of
  # the former a step SFT soon knows them, and ranks others worse.
  config.sft.lists, config.sft.distilled = 4, 32
  common.choose_teacher(config, switches.teacher)
  return config
