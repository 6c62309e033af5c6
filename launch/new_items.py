r"""Gives semantic IDs to items that were not there in training.

    python -m launch.new_items --workdir=DIR --items=new.jsonl \
        --output=catalogue.jsonl

`--items` is a CSV, JSONL or Parquet file as `items.*` of a data set
(gr2_jax/data/README.md). The output is a catalogue, one item a line with its
semantic ID, which re-ranking reads:

    python -m launch.rerank --workdir=DIR --catalogue=catalogue.jsonl \
        --input=lists.jsonl --output=ranked.jsonl

With `--catalogue` the items of an earlier one are written, too, as they are.
The semantic IDs of the run stay as they are; the same items and the same run
give the same IDs, whatever the order of the file. With `--beam` many machines
embed and quantise the items, by Apache Beam (gr2_jax/serve/batch.md).
"""

import functools
import pathlib

from absl import app, flags

from launch import cli, start

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of a run whose sid stage is finished.'
)
_ITEMS = flags.DEFINE_string('items', None, 'CSV, JSONL or Parquet.')
_OUTPUT = flags.DEFINE_string('output', None, 'The catalogue, JSON lines.')
_CATALOGUE = flags.DEFINE_string(
  'catalogue', None, 'Items that got semantic IDs before: an earlier output.'
)
_EMBEDDINGS = flags.DEFINE_string(
  'embeddings',
  '',
  'Vectors of the items, where the run had its own; as `sid.embeddings`.',
)
_BEAM = flags.DEFINE_string(
  'beam',
  '',
  "Options of Apache Beam, such as '--runner=FlinkRunner ...', to quantise "
  'items on many machines.',
)
flags.mark_flags_as_required(['workdir', 'items', 'output'])


def main(argv) -> None:
  """Assigns, writes and reports."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  if _BEAM.value and _EMBEDDINGS.value:
    raise app.UsageError(
      '--beam spreads the work of embedding texts, which --embeddings saves: '
      'leave --beam out.'
    )
  import numpy as np

  from gr2_jax.data import dataset, generic
  from gr2_jax.ranker import catalogues, new_items
  from gr2_jax.sid import vector_files

  start.set_up()
  items = generic.read_items(pathlib.Path(_ITEMS.value).expanduser())
  tokenizer = new_items.load(_WORKDIR.value)
  stamp = catalogues.stamp(tokenizer.sids)
  before = catalogues.Catalogue([], tokenizer.sids[:0])
  if _CATALOGUE.value:
    before = catalogues.read(
      _CATALOGUE.value, tokenizer.item_ids, tokenizer.sids,
      tokenizer.config.codes,
    )  # fmt: skip
    tokenizer.add(before.items, before.sids)
  embeddings = None
  if _EMBEDDINGS.value:
    new = dataset.from_sequences('new', items, {})
    embeddings = vector_files.read(_EMBEDDINGS.value, new)
  quantise = None
  if _BEAM.value:
    from gr2_jax.serve import batch

    output = pathlib.Path(_OUTPUT.value).expanduser()
    quantise = functools.partial(
      batch.codes, output=output, options=_BEAM.value, workdir=_WORKDIR.value
    )
  sids, report = tokenizer.assign(items, embeddings, quantise)
  catalogues.write(
    _OUTPUT.value,
    [*before.items, *items],
    np.concatenate([before.sids, sids]),
    stamp,
  )
  print(report)


if __name__ == '__main__':
  cli.run(main)
