r"""Trains SASRec by the protocol of the literature and measures it.

    python -m launch.sasrec --config=configs/beauty.py \
        --config.data.dir=DIR \
        --workdir=runs/sasrec_beauty --output=results/sasrec_beauty.json

Leave-one-out: the last item of each user is the test target, the one before it
the validation target, and SASRec trains on everything before; all test users
are ranked over the whole catalogue without the items of their history. (The
pipeline's own SASRec also leaves out the re-rank training target, so its
numbers are lower.) An interrupted run resumes. The main settings, beside the
data's, are those of `candidates.sasrec`:

    --config.candidates.sasrec.max_epochs=60
    --config.candidates.sasrec.width=64
"""

import pathlib
import time

from absl import app, flags
from ml_collections import config_flags

from launch import cli, start

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config of the pipeline: data, mesh, candidates.sasrec, seed.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Checkpoints and metrics.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON with the numbers.')
flags.mark_flags_as_required(['config', 'workdir', 'output'])


def _policy(config, cfg):
  from gr2_jax.train import retention

  data = config.data.to_dict()
  return retention.Policy(
    config={'sasrec': cfg, 'seed': config.seed, 'data': data}
  )


def measure(config, directory: pathlib.Path) -> dict:
  """Trains on everything before validation and ranks the test targets.

  Args:
    config: a config of the pipeline.
    directory: checkpoints and metrics.

  Returns:
    The test metrics of SASRec and of popularity, with what they belong to.
  """
  from gr2_jax import config as config_lib
  from gr2_jax import files
  from gr2_jax.data import sources, splits
  from gr2_jax.rank import metrics, popularity, sasrec
  from gr2_jax.run import meshes
  from gr2_jax.train import writers

  source = config_lib.build(sources.SourceConfig, config.data)
  dataset = sources.read(source)
  split = splits.make(dataset, splits.SplitConfig(n_train=0))
  cfg = config_lib.build(sasrec.SASRecConfig, config.candidates.sasrec)
  started = time.monotonic()
  mesh = meshes.make(config)
  model = sasrec.train(
    dataset,
    split,
    cfg,
    mesh,
    directory,
    seed=config.seed,
    policy=_policy(config, cfg),
    tracking=writers.read(config),
  )
  seconds = time.monotonic() - started
  found = {}
  for name in ('valid', 'test'):
    users, positions = split.examples[name]
    pairs = list(zip(users, positions, strict=True))
    histories = [dataset.sequence(u)[:p] for u, p in pairs]
    targets = dataset.flat[dataset.offsets[users] + positions]
    ranks = sasrec.find_ranks(model, histories, targets)
    found[name] = metrics.retrieval_metrics(ranks)
  # Some publications leave the seen items in.
  ranks = sasrec.find_ranks(model, histories, targets, exclude_seen=False)
  found['test_with_seen'] = metrics.retrieval_metrics(ranks)
  popular, _ = popularity.top_k(popularity.train(dataset, split), histories, 10)
  ranks = metrics.find_positions(popular, targets)
  records = list(files.read_jsonl(directory / 'metrics.jsonl'))
  return {
    'dataset': {'name': dataset.name, 'sha256': dataset.sha256},
    'protocol': 'leave-one-out, trained on everything before validation, '
    'seen items excluded',
    'seed': config.seed,
    'config': config_lib.to_dict(cfg),
    'sasrec': found,
    'popularity': {'test': metrics.retrieval_metrics(ranks)},
    'steps': records[-1]['step'],
    'validations': [r for r in records if 'valid_ndcg@10' in r],
    'seconds': round(seconds, 1),
  }


def main(argv) -> None:
  """Measures and writes the JSON."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax import files

  start.set_up()
  directory = pathlib.Path(_WORKDIR.value).expanduser().absolute()
  directory.mkdir(parents=True, exist_ok=True)
  output = pathlib.Path(_OUTPUT.value).expanduser()
  output.parent.mkdir(parents=True, exist_ok=True)
  result = measure(_CONFIG.value, directory)
  files.write_json(output, result)
  for name in ('sasrec', 'popularity'):
    print(name, result[name]['test'])


if __name__ == '__main__':
  cli.run(main)
