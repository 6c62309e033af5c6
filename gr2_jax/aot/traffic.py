"""What a compiled program moves through a chip's main memory.

Every instruction reads its operands and writes its result, but for what stays
in the fast memory beside the cores (the compiler marks it `S(1)`), and but for
slices, of which only the part counts that is read or written.
"""

import re

from gr2_jax.aot import hlo

_FAST = re.compile(r'\b[a-z]\w*\[[0-9,]*\]\{[^}]*S\([1-9]\d*\)[^}]*\}')
_ALIASES = re.compile(r'output_to_operand_aliasing=\{(.*?\))\}')
# No data moves: names, and instructions whose parts are counted for themselves.
_FREE = frozenset(
  (
    *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast'),
    *('while', 'conditional', 'call', 'async-start', 'after-all', 'iota'),
    *('partition-id', 'replica-id', 'opt-barrier', 'add-dependency'),
  )
)
_SLICES = ('dynamic-slice', 'slice', 'gather')
_VIEWS = ('bitcast', 'get-tuple-element')


def hbm_bytes(module: hlo.Module) -> float:
  """Counts the bytes of one run of the program on one device.

  Args:
    module: the program.

  Returns:
    Bytes read and written, those of loops as often as they go round.

  Raises:
    ValueError: a loop does not tell how often it iterates.
  """
  runs = hlo.runs(module)
  return float(
    sum(
      runs[name] * _bytes(module, module.computations[name], op)
      for name in _controlling(module)
      for op in module.computations[name].values()
    )
  )


def _controlling(module: hlo.Module) -> set[str]:
  """Names the computations whose instructions run one after the other."""
  found, todo = set(), [module.entry]
  while todo:
    name = todo.pop()
    if name in found:
      continue
    found.add(name)
    for op in module.computations[name].values():
      if op.kind in ('while', 'conditional', 'call', 'async-start'):
        todo += [inner for _, inner in hlo.called(op)]
  return found


def _main(kind: str) -> int:
  """Returns the bytes of a type that lie in main memory."""
  return hlo.size(_FAST.sub('', kind))


def _bytes(module: hlo.Module, ops: dict[str, hlo.Op], op: hlo.Op) -> int:
  if op.kind in _FREE or op.kind.endswith(('-done', '-update')):
    return 0
  if 'AllocateBuffer' in op.rest:
    return 0  # Room without content.
  types = [ops[name].type if name in ops else '' for name in op.operands]
  if op.kind == 'fusion':
    return _fused(module, op, types)
  if op.kind in _SLICES:
    return _main(op.type) * (1 + bool(_main(types[0])))
  if op.kind == 'dynamic-update-slice':
    return _main(types[1]) + hlo.size(types[1]) * bool(_main(op.type))
  if op.kind.endswith('-start'):
    # Its type names what it reads and what it makes, a copy's in other order.
    made = hlo.parts(op.type)[op.kind != 'copy-start']
    read = hlo.size(made) if 'slice' in op.kind else sum(map(_main, types))
    return read + _main(made)
  return sum(map(_main, types)) + _main(op.type)


def _fused(module: hlo.Module, fusion: hlo.Op, types: list[str]) -> int:
  """Counts a fusion: what it takes of its operands, and its results."""
  inner = _inside(module, fusion)
  kept = _under_way(fusion)
  total = 0
  for op in inner.values():
    if op.kind == 'parameter' and int(op.operands[0]) not in kept.values():
      whole = _main(types[int(op.operands[0])])
      total += min(whole, _taken(module, inner, op.name, whole))
  root = next(op for op in inner.values() if op.root)
  results, parts = [fusion.type], [root]
  if root.kind == 'tuple':
    results, parts = hlo.parts(fusion.type), [inner[x] for x in root.operands]
  for place, (kind, part) in enumerate(zip(results, parts, strict=True)):
    if place not in kept:
      total += min(_main(kind), _written(module, inner, part))
  return total


def _under_way(fusion: hlo.Op) -> dict[int, int]:
  """Returns results that are operands: of a collective that runs beside.

  Such a fusion only passes them on; the collective is counted elsewhere.
  """
  if 'calls=%async_collective_fusion' not in fusion.rest:
    return {}
  found = _ALIASES.search(fusion.rest)
  pairs = re.findall(r'\{(\d+)\}: \((\d+)', found[1]) if found else []
  return {int(result): int(operand) for result, operand in pairs}


def _inside(module: hlo.Module, fusion: hlo.Op) -> dict[str, hlo.Op]:
  return module.computations[dict(hlo.called(fusion))['calls']]


def _written(module: hlo.Module, inner: dict[str, hlo.Op], op: hlo.Op) -> int:
  """Returns the bytes that a result writes: an update's, or all of them."""
  while op.kind in _VIEWS and op.operands[0] in inner:
    op = inner[op.operands[0]]
  if op.kind == 'dynamic-update-slice':
    return hlo.size(inner[op.operands[1]].type)
  if op.kind == 'fusion':
    nested = _inside(module, op)
    root = next(x for x in nested.values() if x.root)
    if root.kind != 'tuple':
      return _written(module, nested, root)
  return hlo.size(op.type)


def _taken(
  module: hlo.Module, inner: dict[str, hlo.Op], name: str, whole: int
) -> int:
  """Returns how many bytes of a parameter its readers take."""
  taken = 0
  for op in inner.values():
    for place, operand in enumerate(op.operands):
      if operand != name or op.kind in ('parameter', 'constant'):
        continue
      if op.kind in _SLICES and place == 0:
        taken += hlo.size(op.type)
      elif op.kind == 'dynamic-update-slice' and place == 0:
        continue  # Written in place.
      elif op.kind in _VIEWS and not op.root:
        taken += _taken(module, inner, op.name, whole)
      elif op.kind == 'fusion':
        nested = _inside(module, op)
        parameter = next(
          x.name
          for x in nested.values()
          if x.kind == 'parameter' and x.operands[0] == str(place)
        )
        taken += _taken(module, nested, parameter, whole)
      else:
        return whole
  return taken
