"""A file ranked part by part: one part, and all of them joined."""

import itertools
import json
import os
import pathlib
from typing import Any

from absl import logging

from gr2_jax import files, rerank
from gr2_jax.data import parts as parts_lib
from gr2_jax.ranker import ranker

# What is made of a part: all its lines, and those that have no answer.
LINES, ERRORS = 'lines', 'errors'


def load(workdir: str, **options: Any) -> ranker.Ranker:
  """Loads a model for `rank`; see `rerank.load`."""
  return rerank.load(workdir, progress=False, **options)


def rank(
  reranker: ranker.Ranker, part: parts_lib.Part, batch_size: int
) -> dict[str, bytes]:
  """Ranks the lists of a part.

  Args:
    reranker: from `load`.
    part: lines of a file, or rows of Parquet.
    batch_size: lists decoded at a time.

  Returns:
    `LINES`, an answer or an error a line, as `launch.rerank` writes them; and
    `ERRORS`, for each that failed an object with `error`, the message, and
    `line`, what was to be ranked. Where the model itself fails, out of memory
    or otherwise, all lines of the part do.

  Raises:
    OSError: the file cannot be read.
    ValueError: a damaged Parquet file.
  """
  lines = parts_lib.read(part)
  numbered = [x for x in enumerate(lines, part.first) if x[1].strip()]
  try:
    given = reranker, lines, part.name, part.first, batch_size
    answers = rerank.rank_lines(*given)
  except Exception as error:
    logging.exception('%s, from line %d on', part.name, part.first)
    answers = [
      rerank.Answer({'error': _failure(part, number, error)}, True)
      for number, _ in numbered
    ]
  errors = [
    {'error': answer.record['error'], 'line': line.decode(errors='replace')}
    for answer, (_, line) in zip(answers, numbered, strict=True)
    if answer.failed
  ]
  found = {LINES: [answer.record for answer in answers], ERRORS: errors}
  return {name: _jsonl(values) for name, values in found.items()}


def _failure(part: parts_lib.Part, number: int, error: Exception) -> str:
  return (
    f'{part.name}:{number}: the lines from {part.first} on could not be ranked '
    f'({type(error).__name__}: {error}); rank them again.'
  )


def _jsonl(values: list[dict]) -> bytes:
  return ''.join(json.dumps(value) + '\n' for value in values).encode()


def path(folder: pathlib.Path, name: str, number: int) -> pathlib.Path:
  """Returns where what is made of a part lies.

  Args:
    folder: where all of it lies.
    name: what it is.
    number: of the part.
  """
  return folder / f'{name}-{number:09d}'


def keep(folder: str, part: parts_lib.Part, made: dict[str, bytes]) -> None:
  """Writes what was made of a part: made twice, it is the same files.

  Args:
    folder: where to.
    part: the part.
    made: content by name.
  """
  for name, content in made.items():
    files.atomic_write(path(pathlib.Path(folder), name, part.number), content)


def join(
  folder: pathlib.Path,
  count: int,
  output: pathlib.Path,
  errors: pathlib.Path,
  strict: bool,
) -> int:
  """Puts what was made of the parts together, in their order.

  Args:
    folder: where it lies.
    count: how many parts there are.
    output: takes all lines.
    errors: takes the lines that failed; empty where none did.
    strict: ends with the first line that failed, which `output` lacks.

  Returns:
    How many lines failed.

  Raises:
    FileNotFoundError: a part was lost.
  """
  failed = 0
  made = folder / output.name, folder / errors.name
  with made[0].open('wb') as lines, made[1].open('wb') as wrong:
    for number in range(count):
      content = path(folder, LINES, number).read_bytes()
      own = path(folder, ERRORS, number).read_bytes().splitlines(keepends=True)
      if own and strict:
        content = _before_error(content)
        own = own[:1]
        logging.error('%s', json.loads(own[0])['error'])
      lines.write(content)
      wrong.writelines(own)
      failed += len(own)
      if own and strict:
        break
  for new, place in zip(made, (output, errors), strict=True):
    os.replace(new, place)
  return failed


def _before_error(content: bytes) -> bytes:
  """Returns the lines before the first one without an answer."""
  lines = content.splitlines(keepends=True)
  fine = itertools.takewhile(
    lambda line: 'error' not in json.loads(line), lines
  )
  return b''.join(fine)
