"""The most that a cache of histories could gain: all are read, at no cost.

Ours scores lists behind histories that were read before (`Ranker.encode`), the
peer reads history and list (`Ranker.rank`), as the server does.
"""

import functools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from gr2_jax import rerank
from gr2_jax.ranker import ranker
from launch.bench import contests

_SIZES, _CALLS = (1, 8, 32), 10


def cached(workdir: str, model: str) -> Iterator[contests.Contest]:
  """Yields a contest for each size of batches.

  Args:
    workdir: of a finished run.
    model: which one of it.
  """
  made = rerank.load(workdir, model, mode='direct', progress=False)
  for size in _SIZES:
    histories, candidates = _lists(made, size)
    read = made.encode(histories)
    ours = _Timed(functools.partial(read.score, candidates))
    theirs = _Timed(functools.partial(made.rank, histories, candidates, size))
    misses = _Timed(functools.partial(_read, made, histories))
    misses()
    misses.seconds.clear()
    misses()

    def facts(sides=(ours, theirs, misses), read=read, size=size) -> dict:
      names = 'ours', 'theirs', 'reading the histories'
      cpu = [1000 * np.median(side.seconds) / size for side in sides]
      arrays = jax.tree.leaves(read.read)
      return {
        'cpu_ms_a_list': {
          name: round(float(ms), 2) for name, ms in zip(names, cpu, strict=True)
        },
        'kib_a_history': round(sum(x.nbytes for x in arrays) / 1024 / size),
      }

    yield contests.Contest(
      f'cached histories, batches of {size}', 'without', 'lists',
      _CALLS * size, ours=ours, theirs=theirs, goal=None, facts=facts,
    )  # fmt: skip


def _lists(
  made: ranker.Ranker, size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Returns whole histories of users, and candidates drawn at random."""
  rng, data = np.random.default_rng(size), made.store.dataset
  users = rng.integers(data.num_users, size=size)
  most = made.store.prompter.cfg.max_candidates
  drawn = [rng.choice(data.num_items, most, replace=False) for _ in users]
  histories = [np.asarray(data.sequence(int(user)), np.int32) for user in users]
  return histories, [np.asarray(items, np.int32) for items in drawn]


def _read(made: ranker.Ranker, histories: list[np.ndarray]) -> None:
  jax.block_until_ready(made.encode(histories).read)


class _Timed:
  """Makes some calls.

  Attributes:
    seconds: that a core had to work, of each call.
  """

  def __init__(self, run: Callable[[], object]):
    self._run, self.seconds = run, []

  def __call__(self) -> None:
    for _ in range(_CALLS):
      begin = time.process_time()
      self._run()
      self.seconds.append(time.process_time() - begin)
