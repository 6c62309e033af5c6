"""`configs/smollm2_beauty.py` with a few steps of each stage, on few items."""

from configs import common, smollm2_beauty


def get_config(arg: str = ''):
  """Returns the config; `lora=0` is its switch."""
  switches = common.parse_switches(arg, lora=0)
  config = smollm2_beauty.get_config(f'lora={switches.lora}')
  # A corner of the catalogue: users and items with many interactions.
  config.data.core = 20
  config.sid.codes = 8
  config.sid.epochs, config.sid.warmup_epochs = 4, 1
  config.sid.batch_size, config.sid.contrastive = 8, 0.0
  prompt = config.text.prompt
  prompt.history_items, prompt.retrieval_items = 3, 6
  phase = {'steps': 2, 'batch_size': 2, 'log_every': 1, 'ckpt_every': 2}
  config.midtrain.new_rows.update(phase, length=128)
  config.midtrain.all.update(phase, length=128, microbatches=1)
  config.midtrain.eval_examples = 4
  config.candidates.sasrec.max_epochs = 1
  config.candidates.width = 10
  config.sft.train.update(phase)
  config.sft.lists = config.sft.explained = config.sft.distilled = 2
  config.rl.steps, config.rl.group_size, config.rl.rankings = 1, 4, 4
  config.rl.updates_per_rollout = 2
  for name in ('prompts_per_step', 'lists_per_step', 'explained_per_step'):
    config.rl[name] = 2
  config.evaluate.max_lists = 4
  return config
