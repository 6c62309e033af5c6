"""A load of many clients at a time, and how long each of them waits."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Sequence

import numpy as np

from gr2_jax.run import artifacts
from launch.bench.load import answers, http_client

RERANK = '/v1/rerank'


@dataclasses.dataclass(frozen=True)
class Lists:
  """Makes lists of a run's users with items drawn at random.

  Attributes:
    store: the run's artifacts.
    seed: of the draws.
  """

  store: artifacts.Artifacts
  seed: int

  def make(self, number: int) -> dict:
    """Returns list `number`: its candidates are those of no other list.

    Args:
      number: from 0 on.
    """
    rng = np.random.default_rng((self.seed, number))
    dataset = self.store.dataset
    watched = dataset.sequence(int(rng.integers(dataset.num_users)))
    length = int(rng.integers(1, len(watched) + 1))
    count = self.store.prompter.cfg.max_candidates
    drawn = rng.choice(dataset.num_items, count, replace=False)
    names = lambda items: [dataset.items[i].item_id for i in items]
    return {'history': names(watched[:length]), 'candidates': names(drawn)}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
  """Returns the median, 95 and 99 of a hundred, and the largest.

  Args:
    seconds: of each request, one or more.
  """
  at = np.percentile(seconds, [50, 95, 99, 100]).tolist()
  return dict(zip(('p50', 'p95', 'p99', 'most'), at, strict=True))


def drive(port: int, lists: Sequence[dict], clients: int) -> list[float]:
  """Asks for lists by many clients at a time, each on its connection.

  Args:
    port: of the server.
    lists: one a request.
    clients: how many wait for an answer at a time.

  Returns:
    The seconds of each request.

  Raises:
    RuntimeError: a list did not get its answer, once.
  """
  return asyncio.run(_drive(port, lists, clients))


async def _drive(port: int, lists: Sequence[dict], clients: int) -> list[float]:
  account, seconds, left = answers.Account(), [], iter(lists)

  async def client() -> None:
    connection = await http_client.connect(port)
    for record in left:
      account.asked += 1
      begin = time.perf_counter()
      try:
        async with asyncio.timeout(http_client.PATIENCE):
          await connection.send(RERANK, record)
          status, body = await connection.read()
      except (OSError, EOFError, TimeoutError) as error:
        account.complain('lost', f'{type(error).__name__} {error}')
        break
      seconds.append(time.perf_counter() - begin)
      account.book([record], status, json.loads(body), [None])
    connection.close()

  await asyncio.gather(*(client() for _ in range(clients)))
  if not account.sound or account.counts['answered'] < account.asked:
    raise RuntimeError(
      f'Of {account.asked} lists: {dict(account.counts)}. {account.problems}'
    )
  if account.counts['fallback']:
    raise RuntimeError(
      f'{account.counts["fallback"]} of {account.asked} lists were not ranked '
      'before their deadline: give the server a later one.'
    )
  return seconds
