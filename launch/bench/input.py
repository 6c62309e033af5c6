"""Does the input keep up with the step? Shards, workers, and what they feed.

Examples of 16 to 192 tokens in ArrayRecord files, read at random, packed into
rows of 256 and stacked to batches of 8, as mid-training reads them, beside the
training step of the 10 M model, measured in the same run.
"""

import contextlib
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import grain
import jax
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import pipeline, rows, shards
from gr2_jax.lm import decoder, loss
from gr2_jax.train import optimiser, state, step
from launch.bench import contests, tasks

SIZE, ROWS, LENGTH = '10M', 8, 256
EXAMPLES, SHORTEST, LONGEST = 16_384, 16, 192
SHARDS, WORKERS = 8, (0, 2)
# So that what worker processes have ready is little beside a call.
BATCHES, STEPS, RECORDS = 512, 8, 2_048


class Examples:
  """Random tokens, the same for an index each time; all are scored."""

  def __init__(self, size: int, vocab: int):
    self._size, self._vocab = size, vocab

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    length = int(rng.integers(SHORTEST, LONGEST + 1))
    weights = np.ones(length, np.float32)
    weights[0] = 0
    tokens = rng.integers(0, self._vocab, length, np.int32)
    return {'tokens': tokens, 'weights': weights}


def parts() -> dict[str, Callable[[], Iterator[contests.Contest]]]:
  """Returns the parts of this group."""
  found = {'reading': _reading}
  for count in WORKERS:
    found[f'input {count}'] = functools.partial(_beside_the_step, count)
    found[f'fed {count}'] = functools.partial(_fed, count)
  return found


@contextlib.contextmanager
def written(examples: int = EXAMPLES, vocab: int = 8192):
  """Gives a folder of shards, and removes it."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'examples'
    shards.write(Examples(examples, vocab), path, SHARDS)
    yield path


def batches(path: pathlib.Path, workers: int) -> pipeline.LMIterator:
  """Returns endless batches of the shards of a folder."""
  source = {'it': shards.Shards(path)}
  return pipeline.lm_iterator(
    source, {'it': 1.0}, LENGTH, ROWS, seed=0, workers=workers
  )


class Step:
  """The training step of the 10 M model, on random weights."""

  def __init__(self):
    config = tasks.SIZES[SIZE]
    self._mesh = sharding.make_mesh()
    tx = optimiser.make(optimiser.OptimiserConfig(schedule='constant', lr=1e-4))
    params = decoder.init(
      config, self._mesh, sharding.TRAIN_RULES, jax.random.key(0)
    )
    self._state = state.create(params, tx, self._mesh)
    self._update = step.make_train_step(
      lambda params, batch: loss.lm_loss(config, params, batch), tx
    )

  def steps(self, source: Iterator[dict[str, np.ndarray]]) -> None:
    """Makes steps, each on the next batch, and waits for the last."""
    with sharding.use(self._mesh, sharding.TRAIN_RULES):
      for batch in itertools.islice(source, STEPS):
        batch = sharding.shard_batch(self._mesh, batch)
        self._state, _ = self._update(self._state, batch)
    jax.block_until_ready(self._state.params)


def _reading() -> Iterator[contests.Contest]:
  """Reading alone: records a second of one process, in random order."""
  with written() as path:
    ours = iter(
      rows.Shuffle(
        grain.MapDataset.source(shards.Shards(path)), 0, None
      ).to_iter_dataset(grain.ReadOptions(0, 0))
    )
    theirs = iter(data_loader(path))
    yield contests.Contest(
      f'reading at random, {SHARDS} shards, one process',
      'grain.DataLoader, shuffled', 'records', RECORDS,
      ours=functools.partial(_take, ours, RECORDS),
      theirs=functools.partial(_take, theirs, RECORDS), goal=1.0,
    )  # fmt: skip


def data_loader(path: pathlib.Path) -> grain.DataLoader:
  """Returns Grain's own loader of the same files; it only decodes."""
  found = sorted(str(p) for p in path.glob('*.array_record'))
  source = grain.sources.ArrayRecordDataSource(found)
  sampler = grain.samplers.IndexSampler(
    len(source), grain.sharding.NoSharding(), shuffle=True, seed=0
  )
  return grain.DataLoader(
    data_source=source, sampler=sampler, operations=[_Decode()]
  )


class _Decode(grain.transforms.Map):
  def map(self, element: bytes) -> dict[str, np.ndarray]:
    return shards.decode(element)


def _take(source: Iterator, count: int) -> None:
  for _ in itertools.islice(source, count):
    pass


def _name(workers: int) -> str:
  where = f'{workers} workers' if workers else 'in the process'
  return f'{SHARDS} shards, {where}'


def _beside_the_step(workers: int) -> Iterator[contests.Contest]:
  """What the input gives beside what the step takes, each alone."""
  with written() as path, contextlib.closing(batches(path, workers)) as source:
    one = itertools.repeat(next(source))
    yield contests.Contest(
      f'input, {_name(workers)}', f'training step, {SIZE}', 'tokens',
      BATCHES * ROWS * LENGTH, ours=functools.partial(_take, source, BATCHES),
      theirs=functools.partial(Step().steps, one), goal=10.0,
      their_count=STEPS * ROWS * LENGTH,
    )  # fmt: skip


def _fed(workers: int) -> Iterator[contests.Contest]:
  """The step on batches as they come beside the step on one batch."""
  with written() as path, contextlib.closing(batches(path, workers)) as source:
    one = itertools.repeat(next(source))
    model = Step()
    yield contests.Contest(
      f'training, {SIZE}, fed by {_name(workers)}', 'the same on one batch',
      'steps', STEPS, ours=functools.partial(model.steps, source),
      theirs=functools.partial(model.steps, one), goal=0.95,
    )  # fmt: skip
