"""The collectives of a compiled program: what crosses the wires, how often."""

import dataclasses
import math
import re

from gr2_jax.aot import hlo

KINDS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)
_LISTED = re.compile(r'replica_groups=\{(\{.*?\})\}')
_COUNTED = re.compile(
  r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?'
)
_NAMED = re.compile(
  r'replica_groups=mesh\[([^\]]*)\]\s*'
  r'(?:,?\s*device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*\{([^}]*)\}'
)
_AXIS = re.compile(r"'(\w+)'(?:=(\d+)|:\((\d+)\)(\d+))?")
_PAIRS = re.compile(r'source_target_pairs=\{(\{.*?\})\}')
_CHANNEL = re.compile(r'channel_id=(\d+)')
_SOURCE = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of a program.

  Attributes:
    kind: one of `KINDS`.
    operand: bytes that a device puts in.
    group: devices that take part together, one group of several alike, as
      places in the program's list of devices; of a permute its first pair.
    runs: how often it happens in one run of the program.
    source: the operation of the JAX program that it came from, if known.
  """

  kind: str
  operand: int
  group: tuple[int, ...]
  runs: int
  source: str

  @property
  def wire(self) -> float:
    """Bytes that a device receives in one run of the program.

    n devices in a ring, each with an operand of b bytes: b (n - 1) to gather,
    b (n - 1) / n to scatter sums or to exchange, twice that to reduce.
    """
    n = len(self.group)
    if self.kind == 'all-gather':
      share = n - 1.0
    elif self.kind == 'all-reduce':
      share = 2 * (n - 1) / n
    elif self.kind in ('collective-permute', 'collective-broadcast'):
      share = 1.0
    else:
      share = (n - 1) / n
    return self.operand * share * self.runs


def find(module: hlo.Module, devices: int) -> list[Collective]:
  """Finds the collectives that cross between devices.

  Args:
    module: the program.
    devices: how many devices it runs on.

  Returns:
    One entry a collective, those in loops with the loop's trip count. The TPU
    compiler may cut one into pieces that run beside other instructions, even
    beside each round of an inner loop: pieces have one channel, and count once.
  """
  found: dict[tuple[str, str], Collective] = {}
  runs = hlo.runs(module)
  for name, ops in module.computations.items():
    for op in ops.values():
      kind = op.kind.removesuffix('-start')
      if kind not in KINDS or not runs[name]:
        continue
      group = _group(op.rest, devices)
      if len(group) < 2:
        continue
      if kind == 'all-reduce' and name.startswith('all-reduce-scatter'):
        # How the TPU compiler writes a reduce-scatter: fused with the slice.
        kind = 'reduce-scatter'
      source, channel = _SOURCE.search(op.rest), _CHANNEL.search(op.rest)
      key = kind, channel[1] if channel else f'{name}/{op.name}'
      if key in found and found[key].runs <= runs[name]:
        continue
      found[key] = Collective(
        kind=kind,
        operand=sum(hlo.size(ops[x].type) for x in op.operands if x in ops),
        group=group,
        runs=runs[name],
        source=source[1] if source else '',
      )
  return list(found.values())


def _group(rest: str, devices: int) -> tuple[int, ...]:
  """Returns the first of the groups that an instruction names.

  Raises:
    ValueError: they are written in a way that is not known here.
  """
  named = _NAMED.search(rest)
  if named:
    return _first_named(*named.groups())
  counted = _COUNTED.search(rest)
  if counted:
    return _first_counted(*counted.groups())
  listed = _LISTED.search(rest) or _PAIRS.search(rest)
  if listed:
    first = listed[1].split('}')[0].strip('{')
    return tuple(map(int, first.split(',')))
  if 'replica_groups=' in rest and 'replica_groups={}' not in rest:
    raise ValueError(f'Unknown form of groups of devices: {rest[:200]!r}.')
  return tuple(range(devices))


def _first_counted(
  shape: str, whole: str, order: str | None
) -> tuple[int, ...]:
  """Reads `[groups,size]<=[dims]T(order)`: devices counted, turned, cut."""
  sizes = [int(x) for x in whole.split(',')]
  axes = [int(x) for x in order.split(',')] if order else range(len(sizes))
  strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
  places = [0]
  for axis in axes:
    places = [p + i * strides[axis] for p in places for i in range(sizes[axis])]
  members = int(shape.split(',')[-1])
  return tuple(places[:members])


def _first_named(
  mesh: str, whole: str | None, order: str | None, axes: str
) -> tuple[int, ...]:
  """Reads `mesh['a'=4,'b'=2], device_ids=([4,2]T(1,0)) {'a','b':(1)2}`.

  A group runs over the axes in the last braces, or over a part of one: that of
  the size behind `(n)`, with n such parts before it.
  """
  sizes = {name: int(size) for name, size, _, _ in _AXIS.findall(mesh)}
  strides, stride = {}, 1
  for name in reversed(sizes):
    strides[name] = stride
    stride *= sizes[name]
  places = [0]
  for name, _, before, part in _AXIS.findall(axes):
    size = int(part) if part else sizes[name]
    step = strides[name] * (sizes[name] // (int(before or 1) * size))
    places = [p + i * step for p in places for i in range(size)]
  if whole is None:
    return tuple(places)
  ids = _first_counted(str(stride), whole, order)
  return tuple(ids[p] for p in places)
