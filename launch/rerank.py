"""Re-ranks new lists with the model of a finished run.

    python -m launch.rerank --workdir=DIR --input=lists.jsonl \
        --output=ranked.jsonl

Each input line is a JSON object: `{"history": [item ids, oldest first],
"candidates": [2 to K item ids, in their incoming order]}`, where known with
`"scores": [the retriever's, a number a candidate]`, and where the run's slates
bring columns with `"features": {name: [a number a candidate]}`; other keys are
carried over. Each output line adds `order` (the item ids, best first),
`explanation` (and `explanation_titles`, the same with titles in place of
semantic IDs) and `valid`: where the model's answer is no permutation, `valid`
is false and `order` is the incoming one. `-` is standard input or output:

    cat lists.jsonl | python -m launch.rerank --workdir=DIR > ranked.jsonl
"""

import json
import pathlib
import sys

from absl import app, flags

from launch import start

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a finished run.')
_INPUT = flags.DEFINE_string('input', '-', 'JSON lines; - is standard input.')
_OUTPUT = flags.DEFINE_string(
  'output', '-', 'JSON lines; - is standard output.'
)
_STAGE = flags.DEFINE_enum('stage', 'rl', ['rl', 'sft'], 'Whose model.')
_BATCH = flags.DEFINE_integer(
  'batch_size', 64, 'Lists decoded at a time.', lower_bound=1
)
_EXPLAIN = flags.DEFINE_bool(
  'explain', True, 'Answers with an explanation; without, they come faster.'
)
flags.mark_flag_as_required('workdir')


def main(argv) -> None:
  """Reads, re-ranks and writes."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax import rerank

  start.set_up()

  source = '<stdin>' if _INPUT.value == '-' else _INPUT.value
  if _INPUT.value == '-':
    lines = sys.stdin.buffer.readlines()
  else:
    with pathlib.Path(_INPUT.value).expanduser().open('rb') as stream:
      lines = stream.readlines()
  reranker = rerank.load(
    _WORKDIR.value,
    _STAGE.value,
    mode='explained' if _EXPLAIN.value else 'direct',
  )
  records = rerank.read_records(lines, source, reranker.store.user_columns)
  records = rerank.rank_records(reranker, records, _BATCH.value)
  text = ''.join(json.dumps(record) + '\n' for record in records)
  if _OUTPUT.value == '-':
    sys.stdout.write(text)
  else:
    with pathlib.Path(_OUTPUT.value).expanduser().open('w') as stream:
      stream.write(text)


if __name__ == '__main__':
  app.run(main)
