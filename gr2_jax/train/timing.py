"""Where the time of a training goes, how fast it is, and what it compiles.

The numbers are written to `timing.jsonl`: `metrics.jsonl` is the same, bit for
bit, for an interrupted run and an undisturbed one, and times never are. What a
step times itself is a metric named `timing/...` (RL's rollouts and updates).

`mfu` counts FLOPs by formula (`lm/flops.py`), of real tokens and the keys that
they attend to: padding and recomputation are no work. RL has none, since
decoding is bound by bandwidth.
"""

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping

import jax

PARTS = ('data', 'compute', 'checkpoint', 'evaluation')

# JAX tells it of each program it hands to the backend, a cached one, too.
COMPILED = '/jax/core/compile/backend_compile_duration'


class Compilations:
  """Counts programs that are compiled; made once a process by `compilations`.

  Attributes:
    count: programs so far. One that comes from the cache of compiled programs
      counts as well: what it shows is that a new program was asked for.
  """

  def __init__(self):
    """Begins to count."""
    self.count = 0
    jax.monitoring.register_event_duration_secs_listener(self._hear)

  def _hear(self, event: str, seconds: float, **_) -> None:
    self.count += event == COMPILED


@functools.cache
def compilations() -> Compilations:
  """Returns the counter of this process."""
  return Compilations()


class Clock:
  """Books all wall time, and all compilations, on the parts of a training.

  What is not booked otherwise is `compute`: handing programs to the devices and
  waiting for their results. Devices work while the host reads the next batch,
  so `data` is what the host spends on it, and costs nothing as long as
  `compute` is above zero.
  """

  def __init__(self, peak_flops: float | None = None):
    """Starts the clock, in `compute`.

    Args:
      peak_flops: FLOP/s of all devices; None leaves `mfu` out.
    """
    self._peak = peak_flops
    self._part = 'compute'
    self._since = time.monotonic()
    self._counted = compilations().count
    self._clear()

  def _clear(self) -> None:
    self._seconds = dict.fromkeys(PARTS, 0.0)
    self._compiled = dict.fromkeys(PARTS, 0)
    self._work: dict[str, float] = {}

  @contextlib.contextmanager
  def book(self, part: str) -> Iterator[None]:
    """Books what happens inside on one of `PARTS`."""
    before = self._part
    self._turn(part)
    try:
      yield
    finally:
      self._turn(before)

  def did(self, work: Mapping[str, float]) -> None:
    """Adds work of all processes: units by name, and `flops`."""
    for name, amount in work.items():
      self._work[name] = self._work.get(name, 0.0) + float(amount)

  def take(self) -> dict[str, float]:
    """Returns what was booked since the last call and starts over.

    Returns:
      `seconds`, of which `seconds/<part>` for each part; `compilations/<part>`;
      for each unit of work `<unit>_per_second`; and `mfu`, FLOPs over those of
      the devices' peak, where both are known. Rates and `mfu` are over the
      seconds of data and compute.
    """
    self._turn(self._part)
    seconds, compiled, work = self._seconds, self._compiled, self._work
    self._clear()
    record = {'seconds': sum(seconds.values())}
    record |= {f'seconds/{part}': s for part, s in seconds.items()}
    record |= {f'compilations/{part}': n for part, n in compiled.items()}
    busy = seconds['data'] + seconds['compute']
    flops = work.pop('flops', 0.0)
    if busy > 0:
      for unit, amount in work.items():
        record[f'{unit}_per_second'] = amount / busy
      if flops and self._peak:
        record['mfu'] = flops / busy / self._peak
    return record

  def _turn(self, part: str) -> None:
    now, counted = time.monotonic(), compilations().count
    self._seconds[self._part] += now - self._since
    self._compiled[self._part] += counted - self._counted
    self._part, self._since, self._counted = part, now, counted
