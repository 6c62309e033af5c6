"""Benchmark group `serve`: the server under load, and a long soak.

    bash launch/bench.sh serve --workdir=runs/quickstart

`launch.serve` runs as a process of its own, and so does the peer; the clients
are this process. Every answer is checked. Peers: one list at a time through the
Python API, in this process, and a server of transformers on the same weights
(`transformers_server`), behind the same HTTP and queue, one list at a time and
in batches of up to 32.
"""

import functools
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

from gr2_jax import rerank
from gr2_jax.run import artifacts
from launch.bench import contests, histories
from launch.bench.load import process, soak, traffic

CLIENTS = (1, 8, 32, 128)
MODEL = 'rl'
_PEER = 'bench.peers.transformers_server'
# Requests of a turn; of the slow peer, and calls through Python.
_LEAST, _EACH, _THEIRS, _CALLS = 200, 25, 8, 200
# Both servers rank every list, however long it waits.
_PATIENT = '--deadline_ms=600000'
# Goals: throughput at 32 clients beside transformers, seconds at 8 clients.
_GOAL, _P99 = 20.0, 0.06


def parts(
  workdir: str, requests: int
) -> dict[str, Callable[[], Iterator[contests.Contest | dict]]]:
  """Returns the parts by name.

  Args:
    workdir: of a finished run.
    requests: of the soak; 0 for the load in its place.

  Raises:
    ValueError: no run is named.
  """
  if not workdir:
    raise ValueError('This group measures a run: give --workdir=DIR.')
  if requests:
    return {'soak': functools.partial(_soak, workdir, requests)}
  found = {
    f'{count} clients': functools.partial(_load, workdir, count)
    for count in CLIENTS
  }
  prefix = functools.partial(histories.cached, workdir, MODEL)
  return found | {'cached histories': prefix}


def _command(module: str, workdir: str, *flags: str) -> list[str]:
  where = f'--workdir={pathlib.Path(workdir).expanduser().absolute()}'
  command = [sys.executable, '-m', f'launch.{module}', where]
  return [*command, f'--model={MODEL}', '--port=0', *flags]


def _load(workdir: str, clients: int) -> Iterator[contests.Contest]:
  """So many clients at a time."""
  lists = traffic.Lists(artifacts.open_run(workdir, MODEL), seed=0)
  ours = _command('serve', workdir, '--explain=false', _PATIENT)
  with process.serving(ours, os.environ) as server:
    drive = _Driver(server, lists, clients, _LEAST + _EACH * clients)
    yield _contest(
      'one list at a time, Python', _Calls(workdir, lists), drive, None
    )
    for size in (1, 32):
      peer = _command(_PEER, workdir, _PATIENT, f'--batch_size={size}')
      name = f'transformers, batches of {size}' if size > 1 else 'transformers'
      count = max(_THEIRS, clients)
      with process.serving(peer, os.environ) as other:
        theirs = _Driver(other, lists, clients, count)
        goal = _GOAL if clients == 32 else None
        yield _contest(name, theirs, drive, goal)


def _contest(
  peer: str, theirs: '_Driver | _Calls', ours: '_Driver', goal: float | None
) -> contests.Contest:
  def split(_: int) -> dict[str, dict[str, float]]:
    return {'ours': ours.percentiles(), 'theirs': theirs.percentiles()}

  def facts() -> dict:
    cpu = {'ours': ours.cpu(), 'theirs': theirs.cpu()}
    return {**ours.facts(), 'cpu_ms_a_list': cpu}

  return contests.Contest(
    f'{ours.clients} clients', peer, 'lists', ours.count,
    ours=ours, theirs=theirs, goal=goal, split=split,
    their_count=theirs.count, facts=facts,
  )  # fmt: skip


class _Driver:
  """Loads a server; remembers how long the requests took.

  Attributes:
    clients: at a time.
    count: requests of a call.
  """

  def __init__(
    self,
    server: process.Server,
    lists: traffic.Lists,
    clients: int,
    count: int,
  ):
    self._server, self._lists, self.clients = server, lists, clients
    self.count = count
    self._turns: list[list[float]] = []
    self._before = process.metrics(server.port)
    self._used = 0.0

  def __call__(self) -> None:
    lists = [self._lists.make(n) for n in range(self.count)]
    used = process.used(self._server.pid)
    self._turns.append(traffic.drive(self._server.port, lists, self.clients))
    self._used += process.used(self._server.pid) - used

  def cpu(self) -> float:
    """Milliseconds of a core that the server took for a list."""
    lists = sum(map(len, self._turns))
    return round(1000 * self._used / lists, 2)

  def percentiles(self) -> dict[str, float]:
    """Of the requests of all calls but the first, which warms up."""
    return traffic.percentiles(list(itertools.chain(*self._turns[1:])))

  def facts(self) -> dict:
    """Returns what the server counted since the first call."""
    now = process.metrics(self._server.port)
    since = lambda name: now.get(name, 0) - self._before.get(name, 0)
    label = 'kind="direct"'
    upto = {
      name.split('le="')[1].split('"')[0]: since(name)
      for name in now
      if name.startswith('gr2_batch_lists_bucket{') and label in name
    }
    below = [0.0, *upto.values()]
    batches = since(f'gr2_batch_lists_count{{{label}}}')
    found = {
      'lists_a_batch': round(
        since(f'gr2_batch_lists_sum{{{label}}}') / batches, 2
      ),
      'batches_upto': {
        size: int(count - less)
        for (size, count), less in zip(upto.items(), below, strict=False)
        if count > less
      },
      'batch_seconds': round(
        since(f'gr2_batch_seconds_sum{{{label}}}') / batches, 5
      ),
      'queue_seconds': round(
        since(f'gr2_queue_seconds_sum{{{label}}}')
        / since(f'gr2_queue_seconds_count{{{label}}}'),
        5,
      ),
      'compilations_after_warm_up': int(
        now['gr2_compilations_after_warm_up_total']
      ),
    }
    return found | ({'p99_goal': _P99} if self.clients == 8 else {})


class _Calls:
  """Ranks lists through the Python API, one at a time.

  Attributes:
    count: lists of a call.
  """

  def __init__(self, workdir: str, lists: traffic.Lists):
    self._ranker = rerank.load(workdir, MODEL, mode='direct', progress=False)
    self._ranker.warm_up(batch_size=1)
    self._lists, self.count = lists, _CALLS
    self._turns: list[list[float]] = []
    self._used = 0.0

  def __call__(self) -> None:
    seconds, used = [], time.process_time()
    for number in range(self.count):
      record = self._lists.make(number)
      run = functools.partial(rerank.rank_records, self._ranker, [record])
      seconds.append(contests.timed(run))
    self._turns.append(seconds)
    self._used += time.process_time() - used

  def cpu(self) -> float:
    """Milliseconds of a core that a list took."""
    return round(1000 * self._used / sum(map(len, self._turns)), 2)

  def percentiles(self) -> dict[str, float]:
    """Of the calls of all turns but the first."""
    return traffic.percentiles(list(itertools.chain(*self._turns[1:])))


def _soak(workdir: str, requests: int) -> Iterator[dict]:
  """Many requests, some of rude clients, and reloads meanwhile."""
  lists = traffic.Lists(artifacts.open_run(workdir, MODEL), seed=1)
  command = _command('serve', workdir, '--queue=1024')
  environment = {**os.environ, 'GR2_ADMIN_TOKEN': soak.TOKEN}
  with process.serving(command, environment) as server:
    yield soak.run(server, lists, requests, workdir)
