"""The process of `trl_trainer`, as the group `rl` sees it."""

import json
import pathlib
import subprocess
import sys

from launch.bench import tasks

WAYS = ('float32', 'autocast to bfloat16', 'bfloat16')
PARTS = ('rollout', 'reward', 'log-probs', 'update', 'rest')


class Peer:
  """A process of `trl_trainer`.

  Attributes:
    seconds: of each step made so far, by part.
  """

  def __init__(self, task: tasks.Task, way: str):
    """Starts it, and waits until it is ready.

    Args:
      task: the step.
      way: of `WAYS`.
    """
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'launch.bench.peers.trl_trainer'],
      cwd=pathlib.Path(__file__).resolve().parents[3],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self._ask(json.dumps({'task': tasks.dump(task), 'way': way}))
    self.seconds = []

  def _ask(self, request: str) -> dict[str, float]:
    print(request, file=self._process.stdin, flush=True)
    line = self._process.stdout.readline()
    if not line:
      self.close()
      raise RuntimeError(
        f'TRL ended with {self._process.returncode}: its messages are above.'
      )
    return json.loads(line)

  def step(self) -> None:
    """Makes a step."""
    self.seconds.append(self._ask(''))

  def close(self) -> None:
    """Ends it."""
    self._process.communicate()


def fastest(task: tasks.Task, ways: tuple[str, ...]) -> tuple[str, Peer]:
  """Returns the way whose first step is the fastest, and its process.

  Nothing compiles, so that the first step says enough.

  Args:
    task: the step.
    ways: of `WAYS`.
  """
  best = None
  for way in ways:
    peer = Peer(task, way)
    peer.step()
    seconds = sum(peer.seconds[0].values())
    if best is None or seconds < best[0]:
      slower, best = best, (seconds, way, peer)
    else:
      slower = seconds, way, peer
    if slower is not None:
      slower[2].close()
  return best[1:]
