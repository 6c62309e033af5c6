"""Amazon Beauty 2014 from Qwen3-8B, the size that the paper starts from.

    python -m launch.pipeline --config=configs/qwen3_8b_beauty.py \
        --config.data.dir=DIR --config.lm.pretrained=QWEN3 \
        --workdir=runs/qwen3_8b_beauty

DIR as for `configs/beauty.py`; QWEN3 is the directory of the checkpoint
(config.json, tokenizer.json, *.safetensors). All parameters train, on a pod of
TPUs: batches are for 64 chips, fewer want more `microbatches`. What fits where,
and how fast it should be, without weights and without a TPU:

    bash launch/aot.sh --config=configs/qwen3_8b_beauty.py --topology=v5e:8x8

`:lora=64` freezes the kernels in bfloat16 and keeps the batches of one
accelerator: parameters and moments take 28 GiB if the tables' new rows train
too.

Switches: `seed=0`; `lora=0`, rank of LoRA, 0 for all parameters; `size=8b`, or
0.6b, 1.7b, or 32b (for the teacher's decoding: `--programs=prefill,decode`);
`attention=splash`, the kernel for TPUs, or cudnn, xla, plain; `teacher=rules`,
`endpoint` or `local`, as in `configs/beauty.py`.
"""

import ml_collections

from configs import common, smollm2_beauty

_CHIPS = 64

# Names, and over how many devices rollouts split a model: 16 GB of a v5e chip
# hold no 8 B of them.
_SIZES = {
  '0.6b': ('Qwen3-0.6B', 1),
  '1.7b': ('Qwen3-1.7B', 1),
  '8b': ('Qwen3-8B', 2),
  '32b': ('Qwen3-32B', 8),
}


def get_config(arg: str = ''):
  """Returns the config; `arg` are the switches after the colon."""
  switches = common.parse_switches(
    arg, seed=0, lora=0, size='8b', attention='splash', teacher='rules'
  )
  if switches.size not in _SIZES:
    raise ValueError(
      f'Switch size={switches.size!r}: choose one of {sorted(_SIZES)}.'
    )
  config = smollm2_beauty.get_config(
    f'seed={switches.seed},teacher={switches.teacher}'
  )
  name, tensor = _SIZES[switches.size]
  config.mesh.data, config.mesh.fsdp = 1, -1
  config.mesh.tensor = 1 if switches.lora else tensor
  config.lm.pretrained = name
  config.lm.lora_rank = switches.lora
  config.lm.attention = switches.attention
  config.lm.param_dtype = 'bfloat16' if switches.lora else 'float32'
  config.midtrain.new_rows.lr = 1e-4
  config.midtrain.all.lr = 1e-4 if switches.lora else 1e-5
  config.sft.train.lr = 1e-4 if switches.lora else 1e-5
  config.rl.lr = 1e-5 if switches.lora else 1e-6
  # More mid-trainings, for the weights of the evidence alone, cost too much.
  config.candidates.folds = 0
  if not switches.lora:
    _for_pods(config, _CHIPS // tensor)
  return config


def _for_pods(config: ml_collections.ConfigDict, parts: int) -> None:
  """Sets batches that 64 chips divide; about as many tokens in all.

  RL alone is given more: of each of its updates every part has a list.

  Args:
    config: of a run, changed here.
    parts: devices that split a batch.
  """
  new_rows, everything = config.midtrain.new_rows, config.midtrain.all
  new_rows.batch_size, new_rows.steps = 128, 100
  everything.batch_size, everything.steps = 1024, 160
  everything.microbatches = 1
  config.sft.train.batch_size, config.sft.train.steps = 64, 120
  config.sft.lists, config.sft.explained = 128, 64
  config.sft.distilled = 128
  config.rl.updates_per_rollout = 4
  size = max(128, config.rl.updates_per_rollout * parts)
  for name in ('prompts_per_step', 'lists_per_step', 'explained_per_step'):
    config.rl[name] = size
