"""Compiles a config's programs for TPUs, on a machine that has none.

    bash launch/aot.sh --config=configs/qwen3_8b_beauty.py --topology=v5e:8x8

Prints the memory of a chip and an estimate of the time of each program: the
largest of arithmetic, memory and interconnect, each at its documented peak. It
fails where a program does not fit. `launch/aot.sh` installs the TPU compiler
(`libtpu`) into a separate environment. Topologies are `v5e:`, `v5p:` or
`v6e:` and chips along each axis. Any setting can be overridden; the main ones:

    --config.lm.pretrained=MODEL          the model
    --config.mesh.fsdp=-1                 devices that split parameters
    --config.mesh.tensor=1                devices that split heads
    --config.midtrain.all.microbatches=1  smaller parts of a batch
    --config.rl.prompts_per_step=256      lists of a step of RL
"""

import os
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from launch import cli, tpu

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with switches after a colon.', lock_config=True
)
_TOPOLOGY = flags.DEFINE_string(
  'topology', None, 'Chips and their shape, such as v5e:8x8 or v5p:2x2x1.'
)
_PROGRAMS = flags.DEFINE_list(
  'programs',
  ['train', 'update', 'prefill', 'decode'],
  'Which of them; a teacher only decodes.',
)
_OUTPUT = flags.DEFINE_string('output', '', 'Where to keep the report (JSON).')
flags.mark_flags_as_required(['config', 'topology'])


def main(argv) -> None:
  """Compiles, prints, and fails where something does not fit."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  os.environ['JAX_PLATFORMS'] = 'cpu'
  tpu.set_flags()
  # Else the TPU compiler asks the network what machine this is.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  # Nothing runs on a device, so compilers need not wait for each other.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  from jax.experimental import topologies

  from gr2_jax import files
  from gr2_jax.aot import ahead, roofline

  config, topology = _CONFIG.value, _TOPOLOGY.value
  roofline.parse_topology(topology)
  found = topologies.get_topology_desc(
    platform='tpu', topology_name=topology
  ).devices
  mesh = ahead.make_mesh(config, found)
  devices = ahead.devices_of(topology, found, mesh)
  report = ahead.report(config, devices, mesh, _PROGRAMS.value)
  print(ahead.table(report))
  if _OUTPUT.value:
    output = pathlib.Path(_OUTPUT.value).expanduser()
    output.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(output, report)
  problems = ahead.misfits(report)
  if problems:
    sys.exit('\n'.join(problems))


if __name__ == '__main__':
  cli.run(main)
