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

Items that nobody knows are left out of histories (`unknown_history` counts
them), and as candidates they are ranked last (`unknown` names them). A line
that cannot be answered gets `error` in the place of an answer, and the exit
code is 3 at the end; `--strict` stops at the first.

Lines are answered as they come in, and written at once. `-` is standard input
or output:

    cat lists.jsonl | python -m launch.rerank --workdir=DIR > ranked.jsonl
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

from absl import app, flags, logging

from launch import cli, start

# Batches answered before their lines are written: those of similar length are
# decoded together.
_BATCHES = 8
_FAILED = 3

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a finished run.')
_INPUT = flags.DEFINE_string('input', '-', 'JSON lines; - is standard input.')
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
flags.mark_flag_as_required('workdir')


def main(argv) -> int:
  """Reads, re-ranks and writes, a chunk of lines at a time."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  start.set_up()
  with contextlib.ExitStack() as stack:
    source, output = _open(stack)
    failed = _answer(source, output)
  if failed and not _STRICT.value:
    logging.error('%d lines have no answer, but `error`.', failed)
  return _FAILED if failed else 0


def _open(stack: contextlib.ExitStack) -> tuple[BinaryIO, BinaryIO]:
  """Opens input and output: what cannot be opened is told before all else."""
  given, made = map(os.path.expanduser, (_INPUT.value, _OUTPUT.value))
  source, output = sys.stdin.buffer, sys.stdout.buffer
  if given != '-':
    source = stack.enter_context(open(given, 'rb'))
  if made != '-':
    with contextlib.suppress(FileNotFoundError):
      if given != '-' and os.path.samefile(given, made):
        raise app.UsageError(
          f'--input and --output are one file, {made}: it would be '
          'emptied. Write to another.'
        )
    output = stack.enter_context(_output(made))
  return source, output


@contextlib.contextmanager
def _output(path: str) -> Iterator[BinaryIO]:
  """Opens the output, with what it holds: no error may cost an old file."""
  new = not os.path.exists(path)
  with open(path, 'ab') as stream:
    try:
      yield stream
    except BaseException:
      if new and not os.path.getsize(path):
        os.unlink(path)
      raise


def _answer(source: BinaryIO, output: BinaryIO) -> int:
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
  name = '<stdin>' if _INPUT.value == '-' else _INPUT.value
  done = failed = 0
  with progress.bar(desc='rerank', unit='list') as bar:
    for lines in _chunks(source, _BATCHES * _BATCH.value):
      found = rerank.rank_lines(reranker, lines, name, done + 1, _BATCH.value)
      done += len(lines)
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


def _chunks(source: BinaryIO, most: int) -> Iterator[list[bytes]]:
  """Yields lines as they come in, at most `most` together."""
  pending = bytearray()
  while block := source.read1(1 << 16):
    pending += block
    if b'\n' not in block:
      continue
    *lines, rest = pending.split(b'\n')
    pending = rest
    for begin in range(0, len(lines), most):
      yield [bytes(line) for line in lines[begin : begin + most]]
  if pending:
    yield [bytes(pending)]


if __name__ == '__main__':
  cli.run(main)
