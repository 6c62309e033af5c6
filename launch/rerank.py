r"""Re-ranks new lists with a model of a finished run.

    python -m launch.rerank --workdir=DIR --input=lists.jsonl \
        --output=ranked.jsonl

Each input line is a JSON object: `{"history": [item ids, oldest first],
"candidates": [2 to K item ids, in their incoming order]}`, where known with
`"scores": [the retriever's, a number a candidate]`, where the run's slates
bring columns with `"features": {name: [a number a candidate]}`, and with
`"items": [objects as in items.jsonl]` for items that came after training. Other
keys are carried over. Each output line adds `order` (the item ids, best first),
`scores` (the utility of each, in that order; it takes the place of the
retriever's), `explanation`, `explanation_titles` (the same with titles in place
of semantic IDs) and `valid`: where the model's answer is no permutation,
`valid` is false and `order` is the incoming one.

Unknown items are left out of histories (`unknown_history` counts them), and as
candidates they are ranked last (`unknown` names them). A line that cannot be
answered gets `error` in the place of an answer, and the exit code is 3 at the
end; `--strict` stops at the first.

Lines are answered as they come in, and written at once. `-` is standard input
or output:

    cat lists.jsonl | python -m launch.rerank --workdir=DIR > ranked.jsonl

The input may be Parquet, too, a file or a folder. With `--beam` many machines
rank a file, by Apache Beam; the output has the same bytes
(gr2_jax/serve/batch.md).
"""

import contextlib
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from absl import app, flags, logging

from launch import cli, start

# Batches answered before their lines are written: those of similar length are
# decoded together.
_BATCHES = 8
_FAILED = 3

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a finished run.')
_INPUT = flags.DEFINE_string(
  'input', '-', 'JSON lines or Parquet; - is standard input.'
)
_OUTPUT = flags.DEFINE_string(
  'output', '-', 'JSON lines; - is standard output.'
)
_MODEL = flags.DEFINE_enum(
  'model', 'rl', ['sft', 'rl', 'direct'], 'Which model of the run.'
)
_MODE = flags.DEFINE_enum(
  'mode',
  None,
  ['explained', 'direct', 'list'],
  'How it answers: with an explanation, without one, which is faster, or by a '
  'list token by token. By default explained; direct with --model=direct.',
)
_BATCH = flags.DEFINE_integer(
  'batch_size', 64, 'Lists decoded at a time.', lower_bound=1
)
_CATALOGUE = flags.DEFINE_string(
  'catalogue', None, 'Items that came after training: of launch.new_items.'
)
_STRICT = flags.DEFINE_bool(
  'strict', False, 'Stops at the first line that cannot be answered.'
)
_BEAM = flags.DEFINE_string(
  'beam',
  '',
  "Options of Apache Beam, such as '--runner=FlinkRunner ...', to rank a file "
  'on many machines.',
)
flags.mark_flag_as_required('workdir')

# Lines of an input, the name of the file and the number of the first line.
Portion = tuple[list[bytes], str, int]


def main(argv) -> int:
  """Reads, re-ranks and writes, a chunk of lines at a time."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  start.set_up()
  given, made = map(os.path.expanduser, (_INPUT.value, _OUTPUT.value))
  with contextlib.suppress(FileNotFoundError):
    if '-' not in (given, made) and os.path.samefile(given, made):
      raise app.UsageError(
        f'--input and --output are one file, {made}: it would be '
        'emptied. Write to another.'
      )
  if _BEAM.value:
    failed = _by_beam(given, made)
  else:
    with contextlib.ExitStack() as stack:
      portions = _portions(given, stack)
      output = sys.stdout.buffer
      if made != '-':
        output = stack.enter_context(_output(made))
      failed = _answer(portions, output)
  if failed and not _STRICT.value:
    logging.error('%d lines have no answer, but `error`.', failed)
  return _FAILED if failed else 0


@contextlib.contextmanager
def _output(path: str) -> Iterator[BinaryIO]:
  """Opens the output, with what it holds: no error may cost an old file."""
  if not os.path.isdir(os.path.dirname(path) or '.'):
    raise FileNotFoundError(
      f'--output={path}: no such folder; make it, or write to another.'
    )
  new = not os.path.exists(path)
  with open(path, 'ab') as stream:
    try:
      yield stream
    except BaseException:
      if new and not os.path.getsize(path):
        os.unlink(path)
      raise


def _by_beam(given: str, made: str) -> int:
  """Has all lines answered by Beam; returns how many could not be."""
  if '-' in (given, made):
    raise app.UsageError(
      '--beam reads and writes files: give --input and --output, on a file '
      'system that all machines share.'
    )
  from gr2_jax.serve import batch

  return batch.rank(
    pathlib.Path(given),
    pathlib.Path(made),
    _BEAM.value,
    workdir=_WORKDIR.value,
    batch_size=_BATCH.value,
    most=_BATCHES * _BATCH.value,
    strict=_STRICT.value,
    model=_MODEL.value,
    mode=_MODE.value,
    catalogue=_CATALOGUE.value,
  )


def _portions(given: str, stack: contextlib.ExitStack) -> Iterator[Portion]:
  """Opens the input: what cannot be opened is told before all else."""
  from gr2_jax.data import parts

  most, path = _BATCHES * _BATCH.value, pathlib.Path(given)
  if given != '-' and not path.exists():
    raise FileNotFoundError(
      f'--input={given}: no such file; give one that is there, or - for '
      'standard input.'
    )
  if given == '-' or not (path.is_file() or path.is_dir()):
    source = sys.stdin.buffer
    if given != '-':
      source = stack.enter_context(open(given, 'rb'))
    return _chunks(source, most, '<stdin>' if given == '-' else given)
  cut = parts.cut(path, most)
  first = list(itertools.islice(cut, 1))
  return (
    (parts.read(part), part.name, part.first)
    for part in itertools.chain(first, cut)
  )


def _answer(portions: Iterable[Portion], output: BinaryIO) -> int:
  """Answers all lines; returns how many could not be."""
  from gr2_jax import progress, rerank

  reranker = rerank.load(
    _WORKDIR.value,
    _MODEL.value,
    mode=_MODE.value,
    catalogue=_CATALOGUE.value,
    progress=False,
  )
  if output is not sys.stdout.buffer and os.path.isfile(output.name):
    output.truncate(0)
  failed = 0
  with progress.bar(desc='rerank', unit='list', compiles=True) as bar:
    for lines, name, first in portions:
      found = rerank.rank_lines(reranker, lines, name, first, _BATCH.value)
      for answer in found:
        if answer.failed and _STRICT.value:
          output.flush()
          logging.error('%s', answer.record['error'])
          return failed + 1
        failed += answer.failed
        output.write(json.dumps(answer.record).encode() + b'\n')
      output.flush()
      bar.update(len(found))
  return failed


def _chunks(source: BinaryIO, most: int, name: str) -> Iterator[Portion]:
  """Yields lines as they come in, at most `most` together."""
  pending, first = bytearray(), 1
  while block := source.read1(1 << 16):
    pending += block
    if b'\n' not in block:
      continue
    *lines, rest = pending.split(b'\n')
    pending = rest
    for begin in range(0, len(lines), most):
      some = lines[begin : begin + most]
      yield [bytes(line) for line in some], name, first
      first += len(some)
  if pending:
    yield [bytes(pending)], name, first


if __name__ == '__main__':
  cli.run(main)
