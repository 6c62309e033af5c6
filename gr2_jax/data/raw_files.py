"""Opens the files that users bring, and says what is wrong with them.

A file may be another thing than its name says: a pointer of git-lfs, an
archive, a folder. That is found out before anything is read of it.
"""

import fnmatch
import gzip
import io
import json
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gr2_jax import progress
from gr2_jax.data import fields

# In characters; a longer line is no row but a file that is not what it seems,
# and would fill the memory.
LONGEST_LINE = 2**24
# Of files that are one JSON value, perhaps in one line.
LONGEST_VALUE = 2**30
_POINTER = b'version https://git-lfs'
_GZIP = b'\x1f\x8b'
_PAGE = 'a page of HTML, as of an error or a login; download the file itself'
_UTF16 = 'a text in UTF-16, as PowerShell and Excel write; save it as UTF-8'
# The first bytes of what is no text, or another one.
_OTHERS = {
  _GZIP: 'a gzip archive; unpack it, or let its name end in .gz',
  b'PK\x03\x04': 'a zip archive or an Excel sheet; unpack it, or save as CSV',
  b'PAR1': 'a Parquet file; let its name end in .parquet',
  b'\x28\xb5\x2f\xfd': 'a zstd archive; unpack it',
  b'BZh91AY&SY': 'a bzip2 archive; unpack it',
  b'\xfd7zXZ\x00': 'an xz archive; unpack it',
  **dict.fromkeys((b'<!doctype html', b'<html'), _PAGE),
  **dict.fromkeys((b'\xff\xfe', b'\xfe\xff'), _UTF16),
}

_BLANKS = re.compile(r'\s*')
_DECODER = json.JSONDecoder()


def one(folder: pathlib.Path, pattern: str, but: str = '') -> pathlib.Path:
  """Returns the one file of a folder that a pattern names, or its `.gz`.

  Args:
    folder: where to look.
    pattern: a glob, without `.gz`.
    but: a glob of names that are not meant.

  Raises:
    FileNotFoundError: no such folder, or not exactly one file.
  """
  found = some(folder, pattern)
  found = [path for path in found if not fnmatch.fnmatch(path.name, but)]
  if len(found) != 1:
    raise FileNotFoundError(
      f'{folder}: {len(found)} files match {pattern}; put exactly one there, '
      'plain or as .gz, and set config.data.dir to the folder and '
      'config.data.kind to what it holds.'
    )
  return found[0]


def some(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  """Returns the files of a folder that a pattern names, or their `.gz`.

  Args:
    folder: where to look.
    pattern: a glob, without `.gz`.

  Returns:
    Files by name, perhaps none.

  Raises:
    FileNotFoundError: no such folder.
  """
  if not folder.is_dir():
    raise FileNotFoundError(
      f'{folder}: no such folder; set config.data.dir to the one with the data.'
    )
  return sorted([*folder.glob(pattern), *folder.glob(f'{pattern}.gz')])


def two(
  folder: pathlib.Path, items: str, interactions: str
) -> dict[str, pathlib.Path]:
  """Finds the files of a folder that holds two.

  Args:
    folder: where they are.
    items: a glob of the one, without `.gz`.
    interactions: a glob of the other.

  Returns:
    'items' and 'interactions' -> file.

  Raises:
    FileNotFoundError: no such folder, or not exactly one file of a kind.
  """
  return {
    'items': one(folder, items),
    'interactions': one(folder, interactions),
  }


def check_place(path: pathlib.Path) -> None:
  """Refuses a path where no file is, before it is opened.

  Args:
    path: of the file.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: a folder; or a pipe or a device, which could be waited for
      without end, and is to be read twice.
  """
  if not path.exists():
    raise FileNotFoundError(f'{path}: no such file; check the path in config.')
  if path.is_dir():
    raise ValueError(
      f'{path}: a folder, where a file is read; put its parts into one file '
      '(folders of parts are read as Parquet alone).'
    )
  if not path.is_file():
    raise ValueError(
      f'{path}: a pipe or a device, where a file is read; write what it gives '
      'to a file.'
    )


def check(path: pathlib.Path, first: bytes = b'') -> None:
  """Looks at the first bytes of a file.

  Args:
    path: the file.
    first: how it must begin; by default as a text.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a folder, an empty file, a pointer of git-lfs, or another
      format.
  """
  check_place(path)
  with path.open('rb') as file:
    head = file.read(64)
  if not head:
    raise ValueError(f'{path}: the file is empty; give it at least one row.')
  if head.startswith(_POINTER):
    raise ValueError(
      f'{path}:1: a pointer of git-lfs, not the file itself; fetch it by '
      '`git lfs pull`.'
    )
  if not head.startswith(first):
    kind, place = 'Parquet file', ''
    if first == _GZIP:
      kind, place = 'gzip archive', ':1'
    raise ValueError(
      f'{path}{place}: not a {kind}, as its name says: it begins with '
      f'{head[:8]!r}; write it again, or rename it.'
    )
  start = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
  for magic, name in _OTHERS.items():
    if not first and start.startswith(magic.lower()):
      raise ValueError(f'{path}:1: this is {name}.')


def lines(
  path: pathlib.Path,
  longest: int = LONGEST_LINE,
  latin: bool = False,
) -> Iterator[str]:
  """Yields the lines of a text file, gunzipped where it ends in `.gz`.

  Args:
    path: the file, UTF-8.
    longest: characters of a line.
    latin: whether a line that is not UTF-8 is read as Latin-1.

  Yields:
    Lines without their line break.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: not UTF-8, a line of more than `longest` characters, a broken
      archive, or nothing in the file; see `check`, too.
  """
  zipped = path.suffix == '.gz'
  check(path, _GZIP if zipped else b'')
  number = 0
  with (
    path.open('rb') as raw,
    progress.bar(
      total=path.stat().st_size, desc=f'read {path.name}', unit='B'
    ) as bar,
  ):
    unzipped = gzip.open(raw) if zipped else raw
    try:
      # Bytes that are not UTF-8 come as surrogates, whose line is then known.
      stream = io.TextIOWrapper(
        unzipped, 'utf-8-sig', 'surrogateescape', newline=''
      )
      found = iter(lambda: stream.readline(longest + 1), '')
      for number, line in enumerate(found, 1):
        yield _checked(line, longest, latin, f'{path}:{number}').rstrip('\r\n')
        if number % 4096 == 0:
          bar.update(raw.tell() - bar.n)
    except (EOFError, zlib.error, OSError) as error:
      raise ValueError(
        f'{path}:{number + 1}: cannot be read ({error}); fetch it again, '
        'the file is cut off or damaged.'
      ) from error
    bar.update(path.stat().st_size - bar.n)
  if not number:
    raise ValueError(f'{path}: the file is empty; give it at least one row.')


def _checked(line: str, longest: int, latin: bool, where: str) -> str:
  """Returns the line, in Latin-1 where it is no UTF-8 and may be."""
  if len(line) > longest:
    raise ValueError(
      f'{where}: a line of more than {longest:,} characters; fix or remove it.'
    )
  if line.isascii():
    return line
  try:
    line.encode()
  except UnicodeEncodeError as error:
    if latin:
      return line.encode('utf-8', 'surrogateescape').decode('latin-1')
    raise ValueError(
      f'{where}: byte 0x{ord(line[error.start]) & 0xFF:02x} at character '
      f'{error.start + 1} is not UTF-8; save the file as UTF-8.'
    ) from error
  return line


def parse(text: str | bytes, where: str) -> Any:
  """Returns the value of a JSON text.

  Args:
    text: the text.
    where: file and line.

  Raises:
    ValueError: not JSON, or an object with a key that stands twice.
  """
  try:
    return json.loads(text, object_pairs_hook=_unique)
  except (ValueError, RecursionError) as error:
    reason, place = error, where
    if isinstance(error, json.JSONDecodeError):
      reason = f'{error.msg} at character {error.colno}'
      path, _, number = where.rpartition(':')
      place = f'{path}:{int(number) + error.lineno - 1}'
    raise ValueError(
      f'{place}: not JSON ({reason}); fix or remove the line, or fetch the '
      'file again where it is cut off.'
    ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Makes an object of its pairs."""
  found = dict(pairs)
  if len(found) < len(pairs):
    twice = fields.repeated(key for key, _ in pairs)
    raise ValueError(f'the key {twice!r} stands twice')
  return found


def json_entries(path: pathlib.Path) -> Iterator[tuple[str, str, Any]]:
  """Yields the entries of a file that is one JSON object.

  Args:
    path: the file, perhaps as `.gz`.

  Yields:
    ('file:line', key, value).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: not JSON, no object, or nothing in it; with file and line.
  """
  text = '\n'.join(lines(path, LONGEST_VALUE))
  found = parse(text, f'{path}:1')
  if not isinstance(found, dict) or not found:
    raise ValueError(
      f'{path}:1: {type(found).__name__} of JSON, not one object with entries; '
      'write {"key": value, ...}.'
    )
  line, counted, begin = 1, 0, 0
  for key, value in found.items():
    name = f'"{key}":'
    place = text.find(name, begin)
    if place >= 0:
      line += text.count('\n', counted, place)
      counted = place
      value_at = _BLANKS.match(text, place + len(name)).end()
      # Behind the value, which may have such a key, too.
      begin = _DECODER.raw_decode(text, value_at)[1]
    yield f'{path}:{line}', key, value


def require(
  columns: Iterable[str], required: Sequence[str], where: str
) -> None:
  """Checks the names of a table's columns.

  Args:
    columns: their names.
    required: those that must be there.
    where: file and line of the names.

  Raises:
    ValueError: one is missing, or one stands twice.
  """
  columns = list(columns)
  missing = [name for name in required if name not in columns]
  if missing:
    raise ValueError(
      f'{where}: no column {missing} among {str(columns):.400}; add it or '
      'rename the one that holds it.'
    )
  twice = fields.repeated(name for name in columns if name)
  if twice is not None:
    raise ValueError(
      f'{where}: the column {twice!r} stands twice among {columns}; remove or '
      'rename one.'
    )
