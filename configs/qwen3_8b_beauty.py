"""Amazon Beauty 2014 from Qwen3-8B, the size that the paper starts from.

    python -m launch.pipeline --config=configs/qwen3_8b_beauty.py \
        --config.data.dir=DIR --config.lm.pretrained=QWEN3 \
        --workdir=runs/qwen3_8b_beauty

DIR as for `configs/beauty.py`; QWEN3 is the directory of the checkpoint
(config.json, tokenizer.json, *.safetensors). All parameters train on a mesh
whose `fsdp` axis is every device; on eight of them parameters and moments of
Adam take 24 GiB of each, a step of 8 rows of 128 tokens 17 GiB more (from
compiling it for CPUs). `:lora=64` freezes the kernels in bfloat16: parameters
and moments take 28 GiB of one accelerator if the tables' new rows train too.

Switches: `seed=0`; `lora=0`, rank of LoRA, 0 for all parameters.
"""

from configs import common, smollm2_beauty


def get_config(arg: str = ''):
  """Returns the config; `arg` are the switches after the colon."""
  switches = common.parse_switches(arg, seed=0, lora=0)
  config = smollm2_beauty.get_config(arg)
  config.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1}
  config.lm.pretrained = 'Qwen3-8B'
  config.lm.param_dtype = 'bfloat16' if switches.lora else 'float32'
  config.midtrain.new_rows.lr = 1e-4
  config.midtrain.all.lr = 1e-4 if switches.lora else 1e-5
  config.sft.train.lr = 1e-4 if switches.lora else 1e-5
  config.rl.lr = 1e-5 if switches.lora else 1e-6
  return config
