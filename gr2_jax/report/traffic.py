"""What a compiled program moves through a chip's main memory.

Every instruction reads its operands and writes its result, but for what stays
in the fast memory beside the cores (the compiler marks it `S(1)`), and but for
slices, of which only the part counts that is read or written.
"""

import re

from gr2_jax.report import hlo

_FAST = re.compile(r'\b[a-z]\w*\[[0-9,]*\]\{[^}]*S\([1-9]\d*\)[^}]*\}')
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
    ValueError: a loop does not tell how often it goes round.
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
  types = [ops[name].type if name in ops else '' for name in op.operands]
  if op.kind == 'fusion':
    inner = module.computations[dict(hlo.called(op))['calls']]
    return _fused(inner, types, op.type)
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


def _fused(inner: dict[str, hlo.Op], types: list[str], result: str) -> int:
  """Counts a fusion: what it takes of its operands, and its result."""
  total = 0
  for op in inner.values():
    if op.kind == 'parameter':
      whole = _main(types[int(op.operands[0])])
      total += min(whole, _taken(inner, op.name, whole))
  root = next(op for op in inner.values() if op.root)
  results, parts = [result], [root]
  if root.kind == 'tuple':
    results, parts = hlo.parts(result), [inner[x] for x in root.operands]
  for kind, part in zip(results, parts, strict=True):
    part = _seen(inner, part)
    size = _main(kind)
    if part.kind == 'dynamic-update-slice':
      size = min(size, hlo.size(inner[part.operands[1]].type))
    total += size
  return total


def _seen(inner: dict[str, hlo.Op], op: hlo.Op) -> hlo.Op:
  """Looks through views."""
  while op.kind in _VIEWS and op.operands[0] in inner:
    op = inner[op.operands[0]]
  return op


def _taken(inner: dict[str, hlo.Op], name: str, whole: int) -> int:
  """Returns how many bytes of a parameter its readers take."""
  taken = 0
  for op in inner.values():
    if name not in op.operands:
      continue
    if op.kind in _SLICES and op.operands[0] == name:
      taken += hlo.size(op.type)
    elif op.kind == 'dynamic-update-slice' and op.operands[0] == name:
      taken += 0  # Written in place.
    elif op.kind in _VIEWS:
      taken += _taken(inner, op.name, whole)
    else:
      return whole
  return taken
