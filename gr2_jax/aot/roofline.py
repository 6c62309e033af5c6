"""What a compiled program will take on a TPU: memory, time, and what bounds it.

An estimate, not a measurement: the time is the largest of three, each with its
unit fully used and nothing in between: arithmetic, memory, interconnect.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gr2_jax import devices as devices_lib
from gr2_jax.aot import collectives, hlo, traffic

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """A TPU chip.

  Peak, memory and bandwidths are those of docs.cloud.google.com/tpu/docs/v5e,
  v5p and v6e (2025). A link carries the documented bidirectional bandwidth of a
  chip, halved for one direction and divided by its ports.

  Attributes:
    name: as topologies name it.
    flops: peak of products in bfloat16, FLOP/s (`devices.PEAK_FLOPS`).
    memory: bytes of high-bandwidth memory (HBM) that programs can have: what
      the compiler says in its messages, a little below the documented 16, 95
      and 32.
    bandwidth: of that memory, bytes/s.
    link: one direction of one link between chips, bytes/s.
    ring: a slice closes an axis of the torus into a ring where its length is a
      multiple of this; other axes are lines.
  """

  name: str
  flops: float
  memory: float
  bandwidth: float
  link: float
  ring: int


_PEAK = devices_lib.PEAK_FLOPS
CHIPS = {
  chip.name: chip
  for chip in (
    # 400 GB/s over 4 ports. Slices of less than a pod's 16 have no wrap-around.
    Chip('v5e', _PEAK['TPU v5e'], 15.75 * GIB, 819e9, 50e9, ring=16),
    # 1,200 GB/s over 6 ports. Cubes of 4 x 4 x 4 close into rings.
    Chip('v5p', _PEAK['TPU v5p'], 95.74 * GIB, 2765e9, 100e9, ring=4),
    # 800 GB/s over 4 ports.
    Chip('v6e', _PEAK['TPU v6e'], 31.25 * GIB, 1638e9, 100e9, ring=16),
  )
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips in a torus.

  Attributes:
    chip: of which kind.
    shape: chips along each axis.
    places: coordinates of each device, in the order of the program's devices.
  """

  chip: Chip
  shape: tuple[int, ...]
  places: tuple[tuple[int, ...], ...]

  def speed(self, group: Sequence[int]) -> float:
    """Returns what a chip receives from its group at most, bytes/s.

    Along each axis of the torus over which the group lies, one link brings data
    in where the axis is a line (a chip at its end has no other), two where the
    group iterates a ring.

    Args:
      group: devices that take part in a collective.
    """
    links = 0
    for axis, length in enumerate(self.shape):
      used = len({self.places[i][axis] for i in group})
      if used > 1:
        closed = used == length and length % self.chip.ring == 0
        links += 2 if closed else 1
    return max(links, 1) * self.chip.link


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
  """Reads the name of a topology.

  Args:
    name: such as 'v5e:8x8' or 'v5p:2x2x1'.

  Returns:
    (chip, chips along each axis).

  Raises:
    ValueError: an unknown chip, or no shape behind it.
  """
  chip, _, shape = name.partition(':')
  sizes = shape.split('x')
  if chip not in CHIPS or not all(size.isdigit() for size in sizes):
    raise ValueError(
      f'Topology {name!r}: give a chip of {sorted(CHIPS)} and its shape, such '
      'as v5e:8x8, v6e:4x4 or v5p:4x4x4.'
    )
  return CHIPS[chip], tuple(map(int, sizes))


@dataclasses.dataclass(frozen=True)
class Work:
  """What a program has to do, by formula.

  Attributes:
    flops: of the model on all chips together: what MFU counts.
    executed: the same with what is computed again in the backward pass.
    streamed: bytes a chip that must be read from memory whatever the program:
      weights and caches; 0 where bandwidth is not the measure.
  """

  flops: float
  executed: float
  streamed: float = 0.0


def memory(
  analysis: Any,
  parts: Mapping[str, float],
  made: Mapping[str, float],
  beside: float,
) -> dict[str, float]:
  """Returns the memory of a chip while a program runs.

  Args:
    analysis: `memory_analysis()` of the compiled program.
    parts: bytes a chip of its arguments by what they are, such as 'parameters'.
    made: of its results alike, those that take no argument's place.
    beside: bytes a chip that others hold meanwhile.

  Returns:
    `parts` and `made`; `inputs` and `outputs`, the arguments and results that
    are none of them, with padding; `temporaries`, the program's own
    (activations, gradients) and its code; `beside`; `total`.
  """
  arguments = analysis.argument_size_in_bytes
  results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  found = {
    **parts,
    **made,
    'inputs': max(arguments - sum(parts.values()), 0.0),
    'outputs': max(results - sum(made.values()), 0.0),
    'temporaries': analysis.temp_size_in_bytes
    + analysis.generated_code_size_in_bytes,
    'beside': beside,
  }
  return {**found, 'total': float(sum(found.values()))}


def estimate(
  text: str, work: Work, devices: Slice
) -> dict[str, float | str | list]:
  """Estimates the time of a program, and what holds it back.

  Args:
    text: of the compiled program.
    work: what it has to do.
    devices: the chips it was compiled for.

  Returns:
    `seconds`; `bound`, the largest of `arithmetic_seconds`, `memory_seconds`
    and `interconnect_seconds`; `mfu`, the model's FLOPs over what the chips
    could do in that time; `bandwidth_share`, of memory, that reading `streamed`
    bytes takes; `collectives`, heaviest first.
  """
  chip, count = devices.chip, len(devices.places)
  module = hlo.parse(text)
  moved = collectives.find(module, count)
  hbm = traffic.hbm_bytes(module)
  # In this order a tie is arithmetic's.
  times = {
    'arithmetic': work.executed / count / chip.flops,
    'memory': hbm / chip.bandwidth,
    'interconnect': _wires(moved, devices),
  }
  bound = max(times, key=times.__getitem__)
  seconds = times[bound]
  return {
    'seconds': seconds,
    'bound': bound,
    **{f'{name}_seconds': value for name, value in times.items()},
    'mfu': work.flops / count / chip.flops / seconds,
    'bandwidth_share': work.streamed / chip.bandwidth / seconds,
    'hbm_bytes': hbm,
    'wire_bytes': sum(c.wire for c in moved),
    'collectives': _listed(moved, devices),
  }


def _wires(moved: Sequence[collectives.Collective], devices: Slice) -> float:
  """Adds up the seconds of collectives, one after the other.

  But permutes to different neighbours take different links: a product that the
  compiler spreads over a ring sends both ways at once.
  """
  total, ways = 0.0, collections.Counter()
  for c in moved:
    seconds = c.wire / devices.speed(c.group)
    if c.kind == 'collective-permute':
      ways[c.group] += seconds
    else:
      total += seconds
  return total + max(ways.values(), default=0.0)


def _listed(
  moved: Sequence[collectives.Collective], devices: Slice
) -> list[dict[str, Any]]:
  rows = [
    {
      'kind': c.kind,
      'devices': len(c.group),
      'runs': c.runs,
      'wire_bytes': c.wire,
      'seconds': c.wire / devices.speed(c.group),
      'source': c.source,
    }
    for c in moved
  ]
  return sorted(rows, key=lambda row: -row['seconds'])
