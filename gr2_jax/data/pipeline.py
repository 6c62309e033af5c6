"""Grain pipelines: shuffled, mixed, packed, sharded, and resumable exactly.

By default everything runs in the calling process, without threads: for data
that fits in memory that was fastest. Worker processes read ahead where the step
is faster than that, from files (`shards.py`) that each opens by itself: of a
source in memory each would get a copy. Each packs its own share of the data, so
their number is part of an iterator's state.

An iterator's state is a small JSON-able dict. It also holds what the iterator
was made of, so that a checkpoint cannot be resumed with other data unnoticed.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import grain
import numpy as np

from gr2_jax.data import order
from gr2_jax.data import rows as rows_lib

# Rows that are filled at a time: more waste less and delay the first batch.
_PACKING_ROWS = 64
# Batches that a worker process has ready.
_READY = 2


class Source(Protocol):
  """Random access to examples `{'tokens': int [t], 'weights': float [t]}`.

  `weights[i]` is the loss weight of predicting `tokens[i]`; `weights[0]` is 0.
  """

  def __len__(self) -> int:
    """Returns the number of examples."""

  def __getitem__(self, index: int) -> Mapping[str, np.ndarray]:
    """Returns one example."""


class LMIterator(Iterator[dict[str, np.ndarray]]):
  """Batches for language modelling; made by `lm_iterator`."""

  def __init__(self, rows: grain.IterDataset, made_of: dict):
    self._rows = iter(rows)
    self._made_of = made_of
    self._size = made_of['batch_size']

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns the next batch; see `lm_iterator`."""
    # Worker processes stack rows themselves.
    workers = self._made_of.get('workers')
    batch = next(self._rows) if workers else self._stack()
    missing = self._size - len(batch['row'])
    if missing:
      batch = {
        name: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        for name, x in batch.items()
      }
    columns = [
      np.ascontiguousarray(batch['row'][..., i])
      for i in (rows_lib.TOKEN, rows_lib.WEIGHT, rows_lib.TASK)
    ]
    return {
      'tokens': columns[0],
      'segments': batch['row_segment_ids'],
      'positions': batch['row_positions'],
      'weights': columns[1].view(np.float32),
      'task': columns[2],
    }

  def _stack(self) -> dict[str, np.ndarray]:
    rows = list(itertools.islice(self._rows, self._size))
    if not rows:
      raise StopIteration
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

  def close(self) -> None:
    """Ends the worker processes; there is no next batch then."""
    self._rows.close()

  def get_state(self) -> dict[str, Any]:
    """Returns a JSON-able state: the next batch is the first one after it."""
    return {'made_of': self._made_of, 'rows': self._rows.get_state()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes back to a state of `get_state`.

    Args:
      state: the state, also after a round trip through JSON.

    Raises:
      ValueError: the state is of an iterator over other data or settings.
    """
    order.check_made_of(state['made_of'], self._made_of)
    self._rows.set_state(state['rows'])


def lm_iterator(
  sources: Mapping[str, Source],
  weights: Mapping[str, float] | None,
  length: int,
  batch_size: int,
  *,
  seed: int,
  num_epochs: int | None = None,
  workers: int = 0,
) -> LMIterator:
  """Mixes, shuffles and packs examples into batches of one shape.

  Endless iterators (`num_epochs=None`) mix the sources by weight. Iterators
  with an end read every source `num_epochs` times; a last batch that is not
  full has empty rows (segment 0, weight 0). Of several processes each makes the
  whole batches, of which `sharding.shard_batch` takes its rows: so the data and
  the iterator's state do not depend on their number.

  Args:
    sources: examples by task.
    weights: share of each task in the examples drawn. With `num_epochs` they
      have no effect, so several sources need None there.
    length: T, tokens a row.
    batch_size: B, rows a batch.
    seed: of the shuffling.
    num_epochs: how often to read the sources; None for endless.
    workers: processes that read, pack and stack ahead, for endless iterators
      over sources that pickle; another number packs other batches.

  Returns:
    An iterator over {'tokens' int32 [B, T], 'segments' int32 [B, T] (from 1, by
    example; 0 = padding), 'positions' int32 [B, T] (from 0 in each example),
    'weights' float32 [B, T], 'task' int32 [B, T] (index in sorted(sources))}.

  Raises:
    ValueError: no or empty sources, weights that do not match them, workers of
      an iterator with an end, and, while iterating, a malformed or a too long
      example.
  """
  _check_sources(sources, weights, num_epochs, workers)
  made_of = {
    'sizes': {name: len(sources[name]) for name in sorted(sources)},
    'weights': weights and {k: float(v) for k, v in weights.items()},
    'length': length,
    'batch_size': batch_size,
    'seed': seed,
    'num_epochs': num_epochs,
    **({'workers': workers} if workers else {}),
  }
  return LMIterator(_rows(sources, made_of), made_of)


def _rows(
  sources: Mapping[str, Source], made_of: Mapping[str, Any]
) -> grain.IterDataset:
  """Gives packed rows, or batches from workers; see `lm_iterator`."""
  length, seed = made_of['length'], made_of['seed']
  shards = [
    grain.MapDataset.source(sources[name]).map(
      rows_lib.ToRow(name, task, length)
    )
    for task, name in enumerate(sorted(sources))
  ]
  if made_of['num_epochs'] is None:
    shards = [
      rows_lib.Shuffle(shard, seed + 1_000_003 * task, None)
      for task, shard in enumerate(shards)
    ]
    shares = [float(made_of['weights'][name]) for name in sorted(sources)]
    mixed = grain.MapDataset.mix(shards, shares)
  else:
    mixed = rows_lib.Shuffle(
      grain.MapDataset.concatenate(shards), seed, made_of['num_epochs']
    )
  options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  rows = mixed.to_iter_dataset(options)
  rows = grain.experimental.FirstFitPackIterDataset(
    rows.map(lambda row: {'row': row}),
    length_struct={'row': length},
    num_packing_bins=_PACKING_ROWS,
    seed=seed,
  )
  workers = made_of.get('workers')
  if not workers:
    return rows
  options = grain.multiprocessing.MultiprocessingOptions(
    num_workers=workers, per_worker_buffer_size=_READY
  )
  rows = rows.batch(made_of['batch_size'], drop_remainder=True)
  return rows.mp_prefetch(options, worker_init_fn=rows_lib.end_with_parent)


def _check_sources(
  sources: Mapping[str, Source],
  weights: Mapping[str, float] | None,
  num_epochs: int | None,
  workers: int,
) -> None:
  if workers < 0 or (workers and num_epochs is not None):
    raise ValueError(
      f'workers={workers} with num_epochs={num_epochs}: only endless iterators '
      'have worker processes; pass 0.'
    )
  empty = sorted(name for name, source in sources.items() if not len(source))
  if not sources or empty:
    raise ValueError(
      f'Sources {sorted(sources)}, without any example: {empty}. Give at least '
      'one source, and leave empty ones out.'
    )
  if num_epochs is not None and num_epochs < 1:
    raise ValueError(f'num_epochs is {num_epochs}; give 1 or more, or None.')
  if len(sources) > 1 and num_epochs is not None and weights is not None:
    raise ValueError(
      f'With num_epochs={num_epochs} each source is read that often, so the '
      f'weights {dict(weights)} would have no effect; pass weights=None.'
    )
  if weights is None:
    fits = num_epochs is not None
  else:
    fits = set(weights) == set(sources) and min(weights.values()) > 0
  if not fits:
    raise ValueError(
      f'Weights {weights} do not fit the sources {sorted(sources)}: give each '
      'source a weight above 0, and leave the others out.'
    )


def index_iterator(n: int, batch_size: int, seed: int) -> order.IndexIterator:
  """Draws endless batches of indices, each epoch in another order.

  Plain NumPy, not Grain, whose cost by element would be felt in batches of
  thousands. A batch may hold the end of an epoch and the beginning of the next.

  Args:
    n: indices are 0..n-1.
    batch_size: B, indices a batch.
    seed: of the orders, 0 or more.

  Returns:
    An iterator over int32 [B] with `get_state()` and `set_state(state)`.

  Raises:
    ValueError: n or batch_size below 1.
  """
  if n < 1 or batch_size < 1:
    raise ValueError(
      f'There are n={n} examples for batches of {batch_size}; both must be 1 '
      'or more.'
    )
  made_of = {'n': n, 'batch_size': batch_size, 'seed': seed}
  return order.IndexIterator(batch_size, made_of)
