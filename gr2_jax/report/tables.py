"""The numbers of Markdown pages, made out of the files that hold them.

A page marks what is made by two comments that a reader does not see, each a
line of its own; between them stands the block NAME of `results/tables.toml`:

    <!-- table: NAME (python -m launch.tables) -->
    <!-- end -->

A block is a table, a paragraph, or a table with a paragraph below it:

    [NAME]
    at = 'FILE.json/rerank'    # where paths start: a file of results/, its keys
    head = 'system | R@5 | NDCG@5'
    cells = '{recall@5:.3f} | {ndcg@5:.3f}'
    rows = [
      ['systems/rl', '`rl`'],
      ['systems/sft', '`sft`', '{recall@5:.3f} |'],
    ]
    text = 'Of {n:,} lists, {deltas/rl-sft/ndcg@5:interval +.3f} over SFT.'

A row is the path of its record, its own first cells, and the cells of its
numbers where they differ from the table's. A number is `{PATH:HOW}`: its path
below the record, or below `results/` if it begins with `/`, and how
`values.show` writes it.
"""

import dataclasses
import pathlib
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence

from gr2_jax.report import values as values_lib

SPEC = 'results/tables.toml'
COMMAND = '.venv/bin/python -m launch.tables'
_FOLDERS = ('configs', 'gr2_jax', 'launch', 'results', 'tests')
_WIDTH = 80
_OPEN = re.compile(r'<!-- table: ([\w-]+) \(python -m launch\.tables\) -->')
_CLOSE = '<!-- end -->'
# A line meant as one of these, whatever its spelling.
_MARK = re.compile(r'\s*<!--\s*(table|end)\b', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Block:
  """What is made between two marks.

  Attributes:
    at: where the paths of rows and text start.
    head: first row of the table.
    cells: of a row, its numbers.
    rows: (path, label) or (path, label, cells) each.
    text: a paragraph, filled to 80 columns.
  """

  at: str = ''
  head: str = ''
  cells: str = ''
  rows: Sequence[Sequence[str]] = ()
  text: str = ''


@dataclasses.dataclass(frozen=True)
class Change:
  """The first line in which a block differs from what would be made.

  Attributes:
    block: its name.
    line: of the page, from 1.
    found: what the page has there.
    made: what its file gives.
  """

  block: str
  line: int
  found: str
  made: str


def make(block: Block, values: values_lib.Values) -> list[str]:
  """Makes the lines of a block.

  Args:
    block: what it is made of.
    values: has its numbers.

  Raises:
    ValueError: a number that is not there or cannot be shown so, or a row with
      more or fewer cells than the head.
  """
  lines = []
  if block.head:
    head = _cells(block.head)
    lines += [_row(head), f'|{"---|" * len(head)}']
    for path, label, *own in block.rows:
      at = values_lib.join(block.at, path)
      template = f'{label} | {own[0] if own else block.cells}'
      row = _cells(values_lib.fill(template, at, values))
      if len(row) != len(head):
        raise ValueError(f'The head has {len(head)} cells, the row {row} not.')
      lines.append(_row(row))
  if block.text:
    lines += [''] if lines else []
    text = values_lib.fill(block.text, block.at, values)
    lines += textwrap.wrap(
      text, _WIDTH, break_long_words=False, break_on_hyphens=False
    )
  return lines


def _cells(row: str) -> list[str]:
  return [cell.strip() for cell in re.split(r'(?<!\\)\|', row)]


def _row(cells: Sequence[str]) -> str:
  return '|' + ''.join(f' {cell} |' if cell else ' |' for cell in cells)


def read_blocks(path: pathlib.Path) -> dict[str, Block]:
  """Reads what blocks are made of, by name.

  Args:
    path: `tables.toml`.

  Raises:
    ValueError: no TOML, a block with a key that it has not, or a row that is
      not of two or three strings.
  """
  try:
    given = tomllib.loads(path.read_text())
  except tomllib.TOMLDecodeError as error:
    raise ValueError(f'{path}: {error}.') from None
  known = {field.name for field in dataclasses.fields(Block)}
  for name, keys in given.items():
    if not isinstance(keys, dict) or not set(keys) <= known:
      raise ValueError(
        f'{path}, block {name}: its keys are of {sorted(known)}, not {keys}.'
      )
    for row in keys.get('rows', ()):
      if len(row) not in (2, 3) or not all(isinstance(x, str) for x in row):
        raise ValueError(
          f'{path}, block {name}: a row is path, label and perhaps cells, '
          f'not {row}.'
        )
  return {name: Block(**keys) for name, keys in given.items()}


def find(lines: Sequence[str]) -> list[tuple[str, int, int]]:
  """Finds the marked blocks of a page.

  Args:
    lines: the page.

  Returns:
    Name of each, and the indices of its two marks.

  Raises:
    ValueError: a mark that is misspelt or lacks its counterpart.
  """
  found, opened = [], None
  for index, line in enumerate(lines):
    if not _MARK.match(line):
      continue
    match = _OPEN.fullmatch(line)
    if match and opened is None:
      opened = (match[1], index)
    elif line == _CLOSE and opened is not None:
      found.append((*opened, index))
      opened = None
    else:
      raise ValueError(
        f'line {index + 1}, {line!r}: marks are `<!-- table: NAME (python -m '
        f'launch.tables) -->` and then `{_CLOSE}`.'
      )
  if opened is not None:
    raise ValueError(f'block {opened[0]}: there is no `{_CLOSE}` after it.')
  return found


def update(
  page: str, blocks: Mapping[str, Block], values: values_lib.Values
) -> tuple[str, list[Change], list[str]]:
  """Makes the marked blocks of a page.

  Args:
    page: Markdown.
    blocks: by name.
    values: has their numbers.

  Returns:
    The page; what changed, one a block; and the names of all its blocks.

  Raises:
    ValueError: wrong marks, a block of an unknown name, or one that cannot be
      made.
  """
  lines = page.split('\n')
  made, changes, names, end = [], [], [], 0
  for name, first, last in find(lines):
    if name not in blocks:
      raise ValueError(f'block {name}: {SPEC} has none of that name.')
    try:
      new = make(blocks[name], values)
    except ValueError as error:
      raise ValueError(f'block {name}: {error}') from None
    change = _first_change(name, first + 2, lines[first + 1 : last], new)
    changes += [change] if change else []
    made += [*lines[end : first + 1], *new]
    names.append(name)
    end = last
  return '\n'.join([*made, *lines[end:]]), changes, names


def _first_change(
  name: str, start: int, old: Sequence[str], new: Sequence[str]
) -> Change | None:
  for index in range(max(len(old), len(new))):
    found, made = (x[index] if index < len(x) else '' for x in (old, new))
    if found != made or (index < len(old)) != (index < len(new)):
      return Change(name, start + index, found, made)
  return None


def update_all(
  root: pathlib.Path,
) -> dict[pathlib.Path, tuple[str, list[Change]]]:
  """Makes the blocks of all pages, and writes nothing.

  Args:
    root: of the repository.

  Returns:
    Of each page with a stale block, what it should be, and what changes.

  Raises:
    ValueError: with page and block, of what cannot be made; or a block that no
      page has.
  """
  blocks = read_blocks(root / SPEC)
  values = values_lib.Values((root / SPEC).parent)
  found, unused = {}, set(blocks)
  pages = [*root.glob('*.md')]
  for folder in _FOLDERS:
    pages += (root / folder).rglob('*.md')
  for path in sorted(pages):
    try:
      page, changes, names = update(path.read_text(), blocks, values)
    except ValueError as error:
      raise ValueError(f'{path.relative_to(root)}, {error}') from None
    unused -= set(names)
    if changes:
      found[path] = (page, changes)
  if unused:
    raise ValueError(f'{SPEC}: no page has the block {", ".join(unused)}.')
  return found


def describe(
  root: pathlib.Path,
  found: Mapping[pathlib.Path, tuple[str, Sequence[Change]]],
) -> str:
  """Tells what changes: page, block, and its first row that differs.

  Args:
    root: of the repository.
    found: of `update_all`.

  Returns:
    Three lines a block; empty where nothing changes.
  """
  return '\n'.join(
    f'{path.relative_to(root)}:{change.line}, block {change.block}\n'
    f'  - {change.found}\n  + {change.made}'
    for path, (_, changes) in found.items()
    for change in changes
  )
