"""A soak: many requests, clients that misbehave, and reloads meanwhile.

Of the clients some go away when they have asked, some send half a body, some
read slowly; the patient ones check every answer. A part of the lists is asked
again and again, and must get the scores that it had alone. The model is taken
from a second name of the same run and back, and memory is watched.
"""

import asyncio
import collections
import json
import pathlib
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from launch.bench.load import answers, http_client, process, traffic

TOKEN = 'of-the-soak'
# Of a thousand requests; the rest are patient clients on connections they keep.
SHARES = {
  'gone': 70, 'cut': 70, 'several': 60, 'slow': 30, 'stream': 1,
  'stream_gone': 1,
}  # fmt: skip
_CLIENTS, _RELOADS, _SAMPLES = 32, 6, 100
# Lists whose scores are known, of those asked; most of several in a request.
_KNOWN, _SHARE, _MOST = 32, 0.25, 8
# After so much of the requests memory is expected to be flat: our choice.
_WARM = 0.3


def run(
  server: process.Server,
  lists: traffic.Lists,
  requests: int,
  workdir: str,
  reloads: int = _RELOADS,
) -> dict:
  """Soaks a server.

  Args:
    server: with `TOKEN` to change it.
    lists: that are asked.
    requests: how many.
    workdir: of the run.
    reloads: how many.

  Returns:
    The counts; `sound` says whether each patient client got its own answer,
    once, nothing was compiled and each reload worked.
  """
  with tempfile.TemporaryDirectory() as directory:
    other = pathlib.Path(directory) / 'second'
    other.symlink_to(pathlib.Path(workdir).expanduser().absolute())
    soak = Soak(server, lists, requests, [str(other), workdir])
    return asyncio.run(soak.run(reloads))


class Soak:
  """A soak of one server.

  Attributes:
    account: the outcomes of patient requests.
    rude: requests of other clients, by kind.
    memory: (requests made, MiB) from time to time.
    reloads: seconds of each, or what was wrong with it.
  """

  def __init__(
    self,
    server: process.Server,
    lists: traffic.Lists,
    requests: int,
    workdirs: Sequence[str],
  ):
    """Prepares it.

    Args:
      server: the server.
      lists: that are asked.
      requests: how many.
      workdirs: that reloads take in turn.
    """
    self._server, self._lists, self._requests = server, lists, requests
    self._workdirs = workdirs
    self._left: Iterator[int] = iter(range(requests))
    self._made = 0
    self._known: list[tuple[dict, list[float]]] = []
    self._streams = True
    self.account = answers.Account()
    self.rude: collections.Counter[str] = collections.Counter()
    self.memory: list[tuple[int, float]] = []
    self.reloads: list[float | str] = []

  async def run(self, reloads: int) -> dict:
    """Makes all requests.

    Args:
      reloads: how many.
    """
    await self._learn()
    begin = time.monotonic()
    changes = asyncio.create_task(self._reload(reloads))
    await asyncio.gather(*(self._client(n) for n in range(_CLIENTS)))
    await changes
    seconds = time.monotonic() - begin
    # What rude clients left behind is answered, or thrown away.
    until = time.monotonic() + http_client.PATIENCE
    while self._waiting() and time.monotonic() < until:
      await asyncio.sleep(0.1)
    return self._report(seconds)

  def _waiting(self) -> int:
    """Returns how many lists are in the server's queue."""
    return int(process.metrics(self._server.port)['gr2_queue_lists'])

  async def _learn(self) -> None:
    """Asks what the model can, and the known lists, one at a time."""
    (model,) = process.read(self._server.port, '/v1/models')['data']
    self._streams = model['explains']
    for number in range(_KNOWN):
      record = self._lists.make(self._requests * _MOST + number)
      status, body = await http_client.ask(
        self._server.port, traffic.RERANK, record
      )
      output = json.loads(body)
      problem = answers.problem(record, output)
      if status != 200 or problem:
        raise RuntimeError(f'Alone, a list got {status}, {problem}: {output}')
      self._known.append((record, answers.scores(output)))

  async def _client(self, name: int) -> None:
    """Takes requests until there are none left."""
    rng, kept = random.Random(name), None
    for number in self._left:
      self._made += 1
      if number % max(1, self._requests // _SAMPLES) == 0:
        self.memory.append((number, process.resident(self._server.pid)))
      kind = _kind(rng)
      if kind.startswith('stream') and not self._streams:
        kind = 'patient'
      if kind in ('gone', 'cut', 'stream_gone'):
        self.rude[kind] += 1
        await self._be_rude(kind, number, rng)
        continue
      alone = kind != 'patient'
      if kept is None or alone:
        connection = await http_client.connect(
          self._server.port, kind == 'slow'
        )
      else:
        connection = kept
      sound = await self._be_patient(connection, kind, number, rng)
      if alone or not sound:
        connection.close()
      kept = kept if alone else connection if sound else None
    if kept is not None:
      kept.close()

  def _ask(
    self, number: int, count: int, rng: random.Random
  ) -> tuple[list[dict], list[list[float] | None]]:
    """Returns lists, and their scores where they are known."""
    given = [
      rng.choice(self._known)
      if rng.random() < _SHARE
      else (self._lists.make(number * _MOST + i), None)
      for i in range(count)
    ]
    return [record for record, _ in given], [scores for _, scores in given]

  async def _be_rude(self, kind: str, number: int, rng: random.Random) -> None:
    connection = await http_client.connect(self._server.port)
    (record,), _ = self._ask(number, 1, rng)
    stream = {'stream': True} if kind == 'stream_gone' else {}
    share = rng.random() if kind == 'cut' else 1.0
    try:
      await connection.send(traffic.RERANK, record | stream, share=share)
      # Some are gone before the list is in the queue, some when it is ranked.
      await asyncio.sleep(rng.random() * 0.05)
      if kind == 'stream_gone':
        await connection.reader.read(100)
    except OSError:
      # It hung up first, which is its right.
      self.rude['refused'] += 1
    finally:
      connection.close()

  async def _be_patient(
    self,
    connection: http_client.Connection,
    kind: str,
    number: int,
    rng: random.Random,
  ) -> bool:
    """Asks and checks; returns whether the connection can be used again."""
    count = rng.randint(2, _MOST) if kind in ('several', 'slow') else 1
    lists, wanted = self._ask(number, count, rng)
    asked: dict[str, Any] = {'inputs': lists} if count > 1 else lists[0]
    if kind == 'slow':
      asked = asked | {'return_documents': True}
    if kind == 'stream':
      asked = asked | {'stream': True}
    self.account.asked += 1
    try:
      async with asyncio.timeout(http_client.PATIENCE):
        await connection.send(traffic.RERANK, asked)
        status, body = await connection.read(kind == 'slow')
    except (OSError, EOFError, TimeoutError) as error:
      self.account.complain('lost', f'{kind}: {type(error).__name__} {error}')
      return False
    if kind != 'stream' or status != 200:
      self.account.book(lists, status, json.loads(body), wanted)
    else:
      self._book_stream(lists, body, wanted)
    if kind != 'patient' and await connection.more(0.01):
      self.account.complain('doubled', f'bytes behind the answer to {number}')
    return True

  def _book_stream(self, lists: list[dict], body: bytes, wanted: list) -> None:
    """Books the order, and checks the explained answer of the same request."""
    found = answers.events(body)
    self.account.book(lists, 200, found['order'], wanted)
    last = found.get('answer', {})
    if last.get('id') != found['order']['id']:
      self.account.complain('wrong', f'events {body.decode()[:300]}')
    elif text := answers.problem(lists[0], last):
      self.account.complain('wrong', text)

  async def _reload(self, count: int) -> None:
    """Takes the run by its other name, and back, at even intervals."""
    for turn in range(count):
      while self._made < (turn + 1) * self._requests / (count + 1):
        await asyncio.sleep(0.05)
      begin = time.monotonic()
      workdir = {'workdir': self._workdirs[turn % len(self._workdirs)]}
      status, body = await http_client.ask(
        self._server.port, '/v1/reload', workdir, TOKEN
      )
      seconds = round(time.monotonic() - begin, 1)
      failed = f'{status}: {body.decode()[:200]}'
      self.reloads.append(seconds if status == 200 else failed)

  def _report(self, seconds: float) -> dict:
    counted = process.metrics(self._server.port)
    compiled = int(counted['gr2_compilations_after_warm_up_total'])
    worked = all(isinstance(each, float) for each in self.reloads)
    return {
      'name': 'soak',
      'requests': self._made,
      'sound': self.account.sound and not compiled and worked,
      'seconds': round(seconds, 1),
      'clients': _CLIENTS,
      'patient': {'asked': self.account.asked, **self.account.counts},
      'rude': dict(self.rude),
      'problems': self.account.problems,
      'reloads': self.reloads,
      'compilations_after_warm_up': compiled,
      'waiting_at_the_end': self._waiting(),
      'memory': growth(self.memory),
    }


def _kind(rng: random.Random) -> str:
  """Draws what a client does."""
  drawn = rng.randrange(1000)
  for kind, share in SHARES.items():
    drawn -= share
    if drawn < 0:
      return kind
  return 'patient'


def growth(memory: Sequence[tuple[int, float]]) -> dict:
  """Says how memory grew.

  Args:
    memory: (requests made, MiB), in rising order.

  Returns:
    `mib`, what was measured; `slope`, MiB a thousand requests of the line
    through all behind the first three tenths, by least squares.
  """
  made, mib = np.array(memory, float).T
  late = made >= _WARM * made[-1]
  slope = np.polyfit(made[late] / 1000, mib[late], 1)[0]
  return {
    'mib': [[int(n), round(x, 1)] for n, x in memory],
    'slope_mib_a_thousand_requests': round(float(slope), 4),
  }
