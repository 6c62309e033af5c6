"""How well candidates were retrieved: metrics, intervals and their report.

A run that ends with its candidates has this report alone: the protocol of the
literature (`configs/beauty.py:literature`) leaves nothing to re-rank.

Letters: N lists, n items a list, L levels.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from gr2_jax import files
from gr2_jax.rank import bootstrap, metrics
from gr2_jax.run import artifacts, reporting, runner

# The stages whose summaries the report holds.
_EARLIER = ('data', 'sid', 'midtrain')
_K = 10
# Users drawn for an interval, at most where 1,000 samples are fewer.
_DRAWS = 10**9


def measure(
  found: Mapping[str, np.ndarray],
  source: str,
  baselines: Sequence[str],
  *,
  targets: np.ndarray,
  store: artifacts.Artifacts,
  seed: int,
) -> dict:
  """Measures lists over the whole catalogue.

  Args:
    found: retriever to items int32 [N, n], n at least ten, -1 pads.
    source: which of the retrievers makes the candidates.
    baselines: which are shown beside it; it may be one of them.
    targets: int32 [N], the true items, of the test examples in their order.
    store: gives the catalogue, its semantic IDs and whose examples they are.
    seed: of the bootstrap.

  Returns:
    'baselines', the numbers of each, and 'retrieval', those of the source: in
    it 'intervals', metric to [mean, low, high], and 'deltas', 'source-baseline'
    to metric to [delta, low, high], both by bootstrap over users, 95 %.
  """
  positions = {
    name: metrics.find_positions(items, targets)
    for name, items in found.items()
  }
  values = {
    name: metrics.by_list(x, recall=(5, 10), ndcg=(5, 10))
    for name, x in positions.items()
  }
  blocks = {
    name: {
      **metrics.retrieval_metrics(positions[name]),
      'illegal_rate': illegal_rate(items, store.dataset.num_items),
      'prefix_recall@10': prefix_recall(items[:, :_K], targets, store.sids),
    }
    for name, items in found.items()
  }
  own = values[source]
  compare = _by_user(store.splits.examples['test'][0], seed)
  nothing = {name: np.zeros_like(x) for name, x in own.items()}
  deltas = {
    f'{source}-{name}': compare(own, values[name])
    for name in baselines
    if name != source
  }
  return {
    'retrieval': {
      **blocks[source],
      'intervals': compare(own, nothing),
      'deltas': deltas,
    },
    'baselines': {name: blocks[name] for name in baselines},
  }


def _by_user(users: np.ndarray, seed: int) -> Callable[..., dict]:
  """Returns the bootstrap over users, with as many samples as are cheap."""
  samples = max(1000, _DRAWS // len(np.unique(users)))
  return functools.partial(
    bootstrap.paired_difference,
    seed=seed,
    samples=min(bootstrap.SAMPLES, samples),
    groups=users,
  )


def illegal_rate(items: np.ndarray, num_items: int) -> float:
  """Returns the share of the named items that do not exist or come twice.

  Args:
    items: int32 [N, n]; -1 pads.
    num_items: I.
  """
  named = items >= 0
  ordered = np.sort(items, axis=1)
  twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
  wrong = (items >= num_items).sum() + twice.sum()
  return float(wrong / max(named.sum(), 1))


def prefix_recall(
  items: np.ndarray, targets: np.ndarray, sids: np.ndarray
) -> list[float]:
  """Measures how many codes of the semantic ID are right.

  Args:
    items: int32 [N, n]; -1 pads.
    targets: int32 [N].
    sids: int32 [I, L].

  Returns:
    L shares: how often some item of the list has the first level's code of the
    target, the first two codes, and so on; the last is the recall. Our choice.
  """
  real = (items >= 0) & (items < len(sids))
  same = sids[np.where(real, items, 0)] == sids[targets][:, None]
  same = np.logical_and.accumulate(same, axis=-1) & real[..., None]
  return same.any(axis=1).mean(axis=0).round(4).tolist()


def write_report(
  config: ml_collections.ConfigDict,
  context: runner.Context,
  summary: Mapping,
  seconds: float,
) -> None:
  """Writes `workdir/retrieval.json`: a report of the pipeline up to here.

  Args:
    config: of the run.
    context: of the candidates stage.
    summary: of the candidates stage.
    seconds: that it took.
  """
  blocks, taken = reporting.read_summaries(context.workdir, _EARLIER)
  report = {
    **reporting.head(config, blocks),
    **summary,
    'seconds': {**taken, 'candidates': round(seconds, 1)},
  }
  files.write_json(context.workdir / 'retrieval.json', report)
