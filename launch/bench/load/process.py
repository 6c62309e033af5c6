"""Servers as processes of their own, for loads."""

import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_ROOT = pathlib.Path(__file__).resolve().parents[3]


class Server(NamedTuple):
  """A server that is ready.

  Attributes:
    port: where it listens.
    pid: of its process.
  """

  port: int
  pid: int


@contextlib.contextmanager
def serving(
  command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Server]:
  """Starts a server of `launch.serve`, or one that says the same words.

  Args:
    command: with its flags.
    environment: of the process.

  Yields:
    The server, once it is ready.

  Raises:
    RuntimeError: it ended before, or not with 0 at SIGTERM.
  """
  lines: collections.deque[str] = collections.deque(maxlen=30)
  with subprocess.Popen(
    command, cwd=_ROOT, env=environment, stderr=subprocess.PIPE, text=True
  ) as process:
    try:
      port, ready = 0, False
      for line in process.stderr:
        lines.append(line)
        if found := re.search(r'Serving .* on http://[\d.]+:(\d+)', line):
          port = int(found[1])
        ready |= 'Ready after' in line
        if ready and port:
          break
        if 'could not be made ready' in line:
          # It would keep running, and refuse all requests.
          process.terminate()
      else:
        raise _ended(command, process.wait(), lines)
      # So that it never waits for who reads its messages.
      drain = threading.Thread(target=lines.extend, args=[process.stderr])
      drain.start()
      yield Server(port, process.pid)
      process.send_signal(signal.SIGTERM)
      status = process.wait(120)
      drain.join()
      if status:
        raise _ended(command, status, lines)
    finally:
      if process.poll() is None:
        process.kill()


def _ended(
  command: Sequence[str], status: int, lines: Sequence[str]
) -> RuntimeError:
  said = ''.join(lines)
  return RuntimeError(f'{" ".join(command)} ended with {status}:\n{said}')


def read(port: int, path: str) -> Any:
  """Reads a document.

  Args:
    port: of the server.
    path: of the route.
  """
  with urllib.request.urlopen(f'http://127.0.0.1:{port}{path}') as answer:
    return json.load(answer)


def metrics(port: int) -> dict[str, float]:
  """Returns the numbers of `/metrics`, by name with labels.

  Args:
    port: of the server.
  """
  with urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics') as answer:
    lines = answer.read().decode().splitlines()
  pairs = (line.rsplit(' ', 1) for line in lines if not line.startswith('#'))
  return {name: float(value) for name, value in pairs}


def resident(pid: int) -> float:
  """Returns the resident memory of a process, in MiB (Linux).

  Args:
    pid: of the process.
  """
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1]) / 1024


def used(pid: int) -> float:
  """Returns the seconds that a process had a core (Linux).

  Args:
    pid: of the process.
  """
  fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1]
  user, system = fields.split()[11:13]
  return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')
