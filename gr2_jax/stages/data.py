"""Stage data: raw files to catalogue, sequences and splits.

Writes `workdir/data/interactions/...`, a TFDS data set in ArrayRecord; later
stages read it by `gr2_jax.data.stored.load`.
"""

import shutil

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import processes
from gr2_jax.data import builder, sources, splits, stored
from gr2_jax.run import reporting, runner


def _external(config: ml_collections.ConfigDict) -> str:
  return sources.fingerprint(
    config_lib.build(sources.SourceConfig, config.data)
  )


@runner.stage('data', sections=('data',), external=_external)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Reads the raw data of `config.data` and writes the data set.

  Args:
    config: `config.data` has the fields of `sources.SourceConfig`.
    context: where to write.

  Returns:
    name, the counts of `clean.clean` (users, items, interactions, what was
    dropped), slates, sha256, by split the number of examples and of their
    users, and how many interactions the retriever trains on.

  Raises:
    FileNotFoundError: a missing file or folder.
    ValueError: bad input, with file, line and remedy.
  """
  source = config_lib.build(sources.SourceConfig, config.data)

  def write() -> None:
    # What a killed run left: nothing in it is worth resuming.
    for leftover in context.directory.glob('*/*/incomplete.*'):
      shutil.rmtree(leftover)
    builder.write(context.directory, source, source.split)

  processes.on_first(write)
  dataset = stored.load(context.directory)
  made = splits.make(dataset, source.split)
  summary = {
    'name': dataset.name,
    **dataset.counts,
    'slates': len(dataset.slates),
    'sha256': dataset.sha256,
    'examples': {k: len(users) for k, (users, _) in made.examples.items()},
    'example_users': {
      k: len(np.unique(users)) for k, (users, _) in made.examples.items()
    },
    'retriever_interactions': int(made.train_end.sum()),
  }
  reporting.tell({'config': config, 'dataset': summary})
  return summary
