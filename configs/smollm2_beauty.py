"""Amazon Beauty 2014 from SmolLM2-135M-Instruct instead of from scratch.

    python -m launch.pipeline --config=configs/smollm2_beauty.py \
        --config.data.dir=DIR --workdir=runs/smollm2_beauty

DIR as for `configs/beauty.py`. The model comes inside a wheel
(gr2_jax/lm/README.md); `--config.lm.pretrained=PATH` takes another one. Made
for one accelerator: on two cores a step of mid-training takes seconds.

Switches: `seed=0`; `lora=0`, rank of LoRA, 0 for all parameters;
`teacher=rules`, `endpoint` or `local`, as in `configs/beauty.py`.
"""

from configs import beauty, common


def get_config(arg: str = ''):
  """Returns the config; `arg` are the switches after the colon."""
  switches = common.parse_switches(arg, seed=0, lora=0, teacher='rules')
  config = beauty.get_config(f'seed={switches.seed},teacher={switches.teacher}')
  # The sizes are the checkpoint's.
  config.lm = common.base().lm
  config.lm.pretrained = 'smollm2'
  config.lm.lora_rank = switches.lora
  config.lm.scan = True
  config.lm.remat = True
  # First the new rows alone, then everything, gently [N: OneRec-Think]; the
  # rates are higher than its 1e-4 and 1e-5, for a model of a tenth of the size.
  config.midtrain.new_rows.steps = 500
  config.midtrain.new_rows.lr = 1e-3
  config.midtrain.all.lr = 3e-4
  config.midtrain.all.dropout = 0.0
  config.sft.train.lr = 1e-4
  config.rl.lr = 5e-6
  return config
