"""Reads the text of a compiled program: its parts, and how often each runs."""

import collections
import dataclasses
import math
import re

_BYTES = {
  **dict.fromkeys(('pred', 's8', 'u8', 's4', 'u4', 's2', 'u2'), 1),
  **dict.fromkeys(('s16', 'u16', 'f16', 'bf16'), 2),
  **dict.fromkeys(('s32', 'u32', 'f32'), 4),
  **dict.fromkeys(('s64', 'u64', 'f64', 'c64'), 8),
  'c128': 16,
}
_ARRAY = re.compile(r'\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,<= ]*)\](\{[^}]*\})?')
_COMMENT = re.compile(r'/\*.*?\*/')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')
_LINE = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_CALLED = re.compile(
  r'\b(calls|to_apply|body|condition|true_computation|false_computation)='
  r'%?([\w.\-]+)'
)
_LISTED = re.compile(
  r'\b(?:branch_computations|called_computations|calls)=\{([^}]*)\}'
)
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)"?\}')


@dataclasses.dataclass(frozen=True)
class Op:
  """One instruction.

  Attributes:
    name: without the '%'.
    kind: such as 'all-gather' or 'fusion'.
    type: of its result, as written.
    operands: names of what it reads; of a literal its text.
    rest: the attributes, as written.
    root: whether it is the result of its computation.
  """

  name: str
  kind: str
  type: str
  operands: tuple[str, ...]
  rest: str
  root: bool


@dataclasses.dataclass(frozen=True)
class Module:
  """A program.

  Attributes:
    entry: name of the computation that it begins with.
    computations: instructions of each computation, by name.
  """

  entry: str
  computations: dict[str, dict[str, Op]]


def parse(text: str) -> Module:
  """Reads what `compiled.as_text()` gives.

  Args:
    text: of an HLO module.

  Returns:
    The program.

  Raises:
    ValueError: the text has no entry.
  """
  computations, entry, current = {}, '', None
  for line in _COMMENT.sub('', text).splitlines():
    head = _HEAD.match(line)
    if head:
      current = computations.setdefault(head[2], {})
      entry = head[2] if head[1] else entry
      continue
    found = _LINE.match(line)
    if found and current is not None:
      op = _op(found[2], found[3], bool(found[1]))
      current[op.name] = op
  if not entry:
    raise ValueError('The text of the compiled program has no ENTRY.')
  return Module(entry, computations)


def _op(name: str, text: str, root: bool) -> Op:
  """Reads what stands behind the `=` of an instruction."""
  end = _close(text, 0) if text[0] == '(' else text.index(' ')
  call = text[end:].strip()
  start = call.index('(')
  stop = _close(call, start)
  inside = _split(call[start + 1 : stop - 1])
  return Op(
    name=name,
    kind=call[:start],
    type=text[:end],
    operands=tuple(part.split()[-1].lstrip('%') for part in inside),
    rest=call[stop:],
    root=root,
  )


def _close(text: str, start: int) -> int:
  """Returns the place behind the bracket that closes the one at `start`."""
  depth = 0
  for place in range(start, len(text)):
    depth += text[place] in '([{'
    depth -= text[place] in ')]}'
    if not depth:
      return place + 1
  raise ValueError(f'No closing bracket in {text[start : start + 80]!r}.')


def _split(text: str) -> list[str]:
  """Splits at the commas outside of brackets."""
  parts, depth, start = [], 0, 0
  for place, letter in enumerate(text):
    depth += letter in '([{'
    depth -= letter in ')]}'
    if letter == ',' and not depth:
      parts.append(text[start:place])
      start = place + 1
  parts.append(text[start:])
  return [part for part in parts if part.strip()]


def size(kind: str) -> int:
  """Returns the bytes of a type, of all its parts if it is a tuple.

  Args:
    kind: such as 'bf16[8,128]{1,0}' or '(f32[4], u32[])'.
  """
  return sum(
    _BYTES.get(name, 1 if name.startswith('f8') else 0)
    * math.prod(int(n) for n in shape.replace('<=', '').split(',') if n.strip())
    for name, shape, _ in _ARRAY.findall(kind)
  )


def parts(kind: str) -> list[str]:
  """Returns the types in a tuple type."""
  return [part.strip() for part in _split(kind.strip()[1:-1])]


def called(op: Op) -> list[tuple[str, str]]:
  """Returns the computations that an instruction runs: (role, name)."""
  listed = [
    ('calls', name.strip().lstrip('%'))
    for names in _LISTED.findall(op.rest)
    for name in names.split(',')
    if name.strip()
  ]
  return _CALLED.findall(op.rest) + listed


def runs(module: Module) -> dict[str, int]:
  """Counts how often each computation runs in one run of the program.

  The body of a loop counts as often as the loop iterates; of the branches of
  a conditional each counts once, though only one will run.

  Args:
    module: the program.

  Returns:
    Counts by name of the computation, 0 where none is reached.

  Raises:
    ValueError: a loop does not tell how often it iterates.
  """
  counts = collections.Counter({module.entry: 1})
  for name in _order(module):
    for op in module.computations[name].values():
      if op.kind.endswith(('-done', '-update')):
        continue  # What they name was begun, and counted, by their `-start`.
      for role, inner in called(op):
        times = 1
        if role in ('body', 'condition'):
          times = trips(module, op) + (role == 'condition')
        counts[inner] += counts[name] * times
  return {name: counts[name] for name in module.computations}


def _order(module: Module) -> list[str]:
  """Returns the computations, callers before what they call."""
  done, order = set(), []

  def visit(name: str) -> None:
    if name in done:
      return
    done.add(name)
    for op in module.computations[name].values():
      for _, inner in called(op):
        visit(inner)
    order.append(name)

  visit(module.entry)
  return order[::-1]


def trips(module: Module, loop: Op) -> int:
  """Returns how often a while loop iterates.

  The compiler says so beside the loop; else the loop must count from a constant
  in steps of one up to a constant, as `lax.scan` does.

  Args:
    module: the program.
    loop: an instruction of the kind 'while'.

  Returns:
    The number.

  Raises:
    ValueError: neither is the case.
  """
  known = _TRIPS.search(loop.rest)
  if known:
    return int(known[1])
  condition = dict(called(loop))['condition']
  limit = _limit(module, condition)
  if limit is None:
    raise ValueError(
      f'Nothing says how often the loop {loop.name} iterates: a program is '
      'counted only if its loops are scans.'
    )
  return limit


def _limit(module: Module, condition: str) -> int | None:
  """Finds the constant of a condition `i < constant`, i from 0."""
  ops = module.computations[condition]
  constants = {
    op.name: int(op.operands[0])
    for op in ops.values()
    if op.kind == 'constant' and op.operands[0].isdigit()
  }
  root = next(op for op in ops.values() if op.root)
  texts = [root.rest] + [
    op.rest
    for _, name in called(root)
    for op in module.computations[name].values()
    if op.kind == 'compare'
  ]
  counts = any('direction=LT' in text for text in texts)
  limits = {constants[name] for name in root.operands if name in constants}
  return limits.pop() if counts and len(limits) == 1 else None
