"""Gives semantic IDs to items that were not there in training.

    python -m launch.new_items --workdir=DIR --items=new.jsonl \
        --output=sids.jsonl

`--items` is a CSV, JSONL or Parquet file as `items.*` of a data set (README.md,
"Bring your own data"). Each output line is `{"item_id": ..., "sid": [codes]}`.
The semantic IDs of the run stay as they are; the same items and the same run
give the same IDs, whatever the order of the file.
"""

import pathlib

from absl import app, flags

from launch import start

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of a run whose sid stage is finished.'
)
_ITEMS = flags.DEFINE_string('items', None, 'CSV, JSONL or Parquet.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON lines.')
_EMBEDDINGS = flags.DEFINE_string(
  'embeddings', '', 'Vectors of the items (.npy), where the run had its own.'
)
flags.mark_flags_as_required(['workdir', 'items', 'output'])


def main(argv) -> None:
  """Assigns, writes and reports."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax import files
  from gr2_jax.data import generic
  from gr2_jax.sid import vectors
  from gr2_jax.stages import new_items

  start.set_up()
  items = generic.read_items(pathlib.Path(_ITEMS.value).expanduser())
  tokenizer = new_items.load(_WORKDIR.value)
  embeddings = None
  if _EMBEDDINGS.value:
    embeddings = vectors.read(_EMBEDDINGS.value, len(items))
  elif tokenizer.config.embeddings:
    raise app.UsageError(
      'The run was trained on embeddings of its own '
      f'({tokenizer.config.embeddings}): give those of the new items with '
      '--embeddings.'
    )
  sids, report = tokenizer.assign(items, embeddings)
  files.write_jsonl(
    pathlib.Path(_OUTPUT.value).expanduser(),
    (
      {'item_id': item.item_id, 'sid': row}
      for item, row in zip(items, sids.tolist(), strict=True)
    ),
  )
  print(report)


if __name__ == '__main__':
  app.run(main)
