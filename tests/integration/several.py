"""Starts the processes of one run on this machine, over 127.0.0.1."""

import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Run:
  """Processes that were started together; `with` ends those that are left.

  Attributes:
    processes: by index.
    outputs: files of what each one prints.
    deadline: when they are killed, as `time.monotonic` counts.
  """

  processes: list[subprocess.Popen]
  outputs: list[pathlib.Path]
  deadline: float

  def wait(self) -> list[int]:
    """Waits for the end of all; kills what is left at the deadline.

    Returns:
      Their return codes; negative ones are signals.
    """
    with self:
      return [self.wait_for(index) for index in range(len(self.processes))]

  def __enter__(self) -> 'Run':
    return self

  def __exit__(self, *exc) -> None:
    for index, process in enumerate(self.processes):
      if process.poll() is None:
        self.kill(index)

  def wait_for(self, index: int) -> int:
    """Waits for one of them; raises `TimeoutExpired` at the deadline."""
    left = max(self.deadline - time.monotonic(), 0.01)
    return self.processes[index].wait(left)

  def kill(self, index: int) -> None:
    """Ends one of them by SIGKILL."""
    os.killpg(self.processes[index].pid, signal.SIGKILL)
    self.processes[index].wait()

  def said(self, index: int) -> str:
    """Returns what one of them printed."""
    return self.outputs[index].read_text(errors='replace')


def start(
  count: int,
  devices: int,
  command: Sequence[str],
  limit: float = 1200.0,
  heartbeat: int = 30,
) -> Run:
  """Starts a command of `launch` as several processes of one run.

  Args:
    count: how many; a single one adds up over its devices as several do,
      bit for bit, while a plain run adds in another order.
    devices: CPU devices of each.
    command: behind `python`.
    limit: seconds after which `Run.wait` kills them: not how long they should
      take, but how long nothing takes beside other work.
    heartbeat: seconds without a sign of life after which one counts as dead.

  Returns:
    The run.
  """
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': str(devices),
    'PYTHONPATH': str(ROOT),
  }
  folder = pathlib.Path(tempfile.mkdtemp(prefix='gr2_several_'))
  run = Run([], [], time.monotonic() + limit)
  for index in range(count):
    flags = [
      f'--coordinator={address}',
      f'--num_processes={count}',
      f'--process_id={index}',
      f'--heartbeat_timeout={heartbeat}',
    ]
    run.outputs.append(folder / f'{index}.txt')
    with run.outputs[-1].open('w') as stream:
      run.processes.append(
        subprocess.Popen(
          [sys.executable, *command, *flags],
          cwd=ROOT,
          env=environment,
          stdin=subprocess.DEVNULL,
          stdout=stream,
          stderr=subprocess.STDOUT,
          start_new_session=True,
        )
      )
  return run
