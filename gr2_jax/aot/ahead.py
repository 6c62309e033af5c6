"""Compiles a config's programs for a TPU slice that need not be there.

Says of each what it holds in a chip's memory, and how long it will take by the
estimate of `roofline.py`.
"""

import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from absl import logging

from gr2_jax import sharding
from gr2_jax.aot import plan as plan_lib
from gr2_jax.aot import programs, roofline
from gr2_jax.report import terminal

_PARTS = ('parameters', 'optimiser', 'cache', 'temporaries', 'total')
_REMEDIES = {
  'train': 'more chips, or a larger midtrain.all.microbatches',
  'update': 'more chips, or a larger rl.microbatches',
  'prefill': 'a larger mesh.tensor, or a smaller rl.prompts_per_step',
  'decode': 'a larger mesh.tensor, or a smaller rl.prompts_per_step',
}
# How the TPU compiler says that a program does not fit.
_REFUSED = re.compile(r'(?:Used |HLO temporaries \()([\d.]+)([KMGT])')
_UNITS = dict(zip('KMGT', (2**10, 2**20, 2**30, 2**40), strict=True))


def report(
  config: ml_collections.ConfigDict,
  devices: roofline.Slice,
  mesh: jax.sharding.Mesh,
  names: Sequence[str],
) -> dict[str, Any]:
  """Compiles programs and judges them.

  Args:
    config: of a run.
    devices: the slice, in the order of the mesh's devices.
    mesh: of `config.mesh`, over the slice's devices.
    names: of `programs.NAMES`.

  Returns:
    JSON-able: the model, the slice, and a row of each program.

  Raises:
    ValueError: no such program, or sizes that do not fit the mesh.
    FileNotFoundError: a checkpoint that is neither there nor known.
  """
  plan = plan_lib.make(config, mesh)
  made = {name: programs.make(name, plan) for name in names}
  # Rollouts run beside what is trained on them.
  beside = plan_lib.chip_bytes(made['update'].held) if 'update' in made else 0.0
  rows = {}
  for name, program in made.items():
    idle = beside if name in ('prefill', 'decode') else 0.0
    rows[name] = _row(program, devices, idle)
    logging.info('%s: %s', name, _sentence(rows[name]))
  return {
    'model': config.lm.get('pretrained', ''),
    'parameters': plan.model.num_params,
    'chip': devices.chip.name,
    'topology': list(devices.shape),
    'mesh': dict(mesh.shape),
    'jax': jax.__version__,
    'attention': plan.model.attention,
    'programs': rows,
  }


def _row(
  program: programs.Program, devices: roofline.Slice, beside: float
) -> dict[str, Any]:
  """Compiles a program; a row without estimate where it is refused."""
  started = time.monotonic()
  row = {'batch': program.size, 'limit': devices.chip.memory}
  parts = {k: plan_lib.chip_bytes(tree) for k, tree in program.held.items()}
  made = {k: plan_lib.chip_bytes(tree) for k, tree in program.made.items()}
  try:
    compiled = program.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    refused = _REFUSED.search(str(error))
    if not refused:
      raise
    used = float(refused[1]) * _UNITS[refused[2]]
    if refused[0].startswith('HLO'):
      used += sum(parts.values())
    memory = {**parts, 'beside': beside, 'total': used + beside}
    return {**row, 'fits': False, 'memory': memory}
  memory = roofline.memory(compiled.memory_analysis(), parts, made, beside)
  return {
    **row,
    'fits': memory['total'] <= devices.chip.memory,
    'memory': memory,
    **roofline.estimate(compiled.as_text(), program.work, devices),
    'compile_seconds': round(time.monotonic() - started, 1),
  }


def _sentence(row: dict[str, Any]) -> str:
  if 'seconds' not in row:
    return 'does not fit'
  return f'compiled in {row["compile_seconds"]} s'


def misfits(report: dict[str, Any]) -> list[str]:
  """Returns a sentence for each program that does not fit."""
  gib = roofline.GIB
  return [
    f'{name} ({row["batch"]}) takes {row["memory"]["total"] / gib:.1f} GiB of '
    f'a {report["chip"]} chip that has {row["limit"] / gib:.1f}: take '
    f'{_REMEDIES[name]}.'
    for name, row in report['programs'].items()
    if not row['fits']
  ]


def table(report: dict[str, Any]) -> str:
  """Lays out a report for a terminal."""
  gib = roofline.GIB
  mesh = ', '.join(f'{k} {v}' for k, v in report['mesh'].items())
  shape = 'x'.join(map(str, report['topology']))
  title = (
    f'{report["model"]} ({report["parameters"] / 1e9:.2f} B) on '
    f'{report["chip"]}:{shape} ({mesh}), attention {report["attention"]!r}'
  )
  memory = [['GiB a chip', *_PARTS, 'limit', 'batch']]
  times = [['ms', 'arithmetic', 'memory', 'wires', 'bound', 'MFU', 'bandwidth']]
  for name, row in report['programs'].items():
    held = [f'{row["memory"].get(part, 0.0) / gib:.2f}' for part in _PARTS]
    memory.append([name, *held, f'{row["limit"] / gib:.2f}', row['batch']])
    if 'seconds' not in row:
      continue
    kinds = ('arithmetic', 'memory', 'interconnect')
    numbers = [f'{1e3 * row[f"{kind}_seconds"]:.2f}' for kind in kinds]
    shares = [f'{row[key]:.0%}' for key in ('mfu', 'bandwidth_share')]
    times.append([name, *numbers, row['bound'], *shares])
  return '\n\n'.join([title, *map(terminal.rows, (memory, times))])


def devices_of(
  topology: str, found: Sequence[jax.Device], mesh: jax.sharding.Mesh
) -> roofline.Slice:
  """Describes the slice that a mesh covers.

  Args:
    topology: its name, such as 'v5e:8x8'.
    found: its devices.
    mesh: over them.

  Returns:
    The slice, its places in the order of the mesh's devices.

  Raises:
    ValueError: an unknown chip, or devices that are parts of chips.
  """
  chip, shape = roofline.parse_topology(topology)
  places = tuple(tuple(d.coords)[: len(shape)] for d in mesh.devices.flat)
  if len(set(places)) != len(found):
    raise ValueError(
      f'{topology} has {len(found)} devices on {len(set(places))} chips: only '
      'chips that are one device each are known here.'
    )
  return roofline.Slice(chip, shape, places)


def make_mesh(
  config: ml_collections.ConfigDict, devices: Sequence[jax.Device]
) -> jax.sharding.Mesh:
  """Makes the mesh of a config over the devices of a slice."""
  return sharding.make_mesh(**config.mesh, devices=devices)
