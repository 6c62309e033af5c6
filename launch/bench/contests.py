"""How ours and a peer are measured: in turns, in one run."""

import contextlib
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import NamedTuple

# What decides how fast a processor multiplies, as the kernel names it.
BF16_UNITS = ('avx512_bf16', 'amx_bf16')
UNITS = ('avx2', 'avx512f', *BF16_UNITS)


class Contest(NamedTuple):
  """Two ways to do the same.

  Attributes:
    name: what is done.
    peer: by whom else.
    unit: of what is counted.
    count: how much one call does.
    ours: does it, and waits until it is done.
    theirs: does it, too.
    goal: the ratio of rates that we want; None where we want none.
    split: the seconds of a call by part, {'ours': {part: s}, 'theirs': ..},
      over so many last calls; None where they are not known.
    their_count: how much one call of theirs does, where that is another number.
    facts: what else is known of ours, for the row.
  """

  name: str
  peer: str
  unit: str
  count: int
  ours: Callable[[], None]
  theirs: Callable[[], None]
  goal: float | None
  split: Callable[[int], dict[str, dict[str, float]]] | None = None
  their_count: int | None = None
  facts: Callable[[], dict] | None = None


def seconds(run: Callable[[], None]) -> float:
  """Measures one call, from quiet: threads of the last one may still spin."""
  time.sleep(0.3)
  return timed(run)


def timed(run: Callable[[], None]) -> float:
  """Measures one call, at once."""
  started = time.perf_counter()
  run()
  return time.perf_counter() - started


def fastest(runs: dict[str, Callable]) -> tuple[str, Callable]:
  """Finds the fastest of several ways, after one call each to warm up.

  Args:
    runs: the ways by name.

  Returns:
    (name, way).
  """
  times = {}
  for name, run in runs.items():
    run()
    times[name] = timed(run)
  best = min(times, key=times.get)
  return best, runs[best]


def measure(contest: Contest, turns: int) -> dict:
  """Lets ours and the peer take turns, after one call each to warm up.

  Args:
    contest: what to measure.
    turns: number of turns.

  Returns:
    Rates (median) and the median of the turns' ratios, ours over theirs; and
    `seconds` by part where the contest has a split.
  """
  contest.ours()
  contest.theirs()
  pairs = [
    (seconds(contest.ours), seconds(contest.theirs)) for _ in range(turns)
  ]
  counts = contest.count, contest.their_count or contest.count
  rates = [
    count / statistics.median(times)
    for count, times in zip(counts, zip(*pairs, strict=True), strict=True)
  ]
  share = counts[0] / counts[1]
  ratios = [share * theirs / ours for ours, theirs in pairs]
  row = {
    'name': contest.name,
    'peer': contest.peer,
    'unit': f'{contest.unit}/s',
    'ours': _short(rates[0]),
    'theirs': _short(rates[1]),
    'ratio': round(statistics.median(ratios), 3),
    'ratio_range': [round(min(ratios), 3), round(max(ratios), 3)],
    'goal': contest.goal,
  }
  if contest.split is not None:
    row['seconds'] = {
      side: {part: float(f'{s:.3g}') for part, s in seconds.items()}
      for side, seconds in contest.split(turns).items()
    }
  if contest.facts is not None:
    row |= contest.facts()
  return row


def _short(rate: float) -> float:
  """Leaves a tenth, or three digits of what is slower than that."""
  return round(rate, 1) if rate >= 10 else float(f'{rate:.3g}')


def _processor() -> tuple[str, list[str]]:
  """Returns its name and which of `UNITS` it has."""
  info = pathlib.Path('/proc/cpuinfo')
  found = {}
  for line in info.read_text().splitlines() if info.exists() else []:
    name, _, value = line.partition(':')
    found.setdefault(name.strip(), value.strip())
  flags = found.get('flags', '').split()
  name = found.get('model name', platform.processor())
  return name, [unit for unit in UNITS if unit in flags]


def multiplies_bf16() -> bool:
  """Returns whether this processor has units for bfloat16."""
  return any(unit in BF16_UNITS for unit in _processor()[1])


def machine() -> dict:
  """Describes the processor, its other load and the packages compared."""
  name, units = _processor()
  packages = ('jax', 'torch', 'transformers', 'trl', 'faiss-cpu')
  return {
    'processor': name,
    'units': units,
    'cores': len(os.sched_getaffinity(0)),
    # Of the whole machine, when it began: processes that could run.
    'load': round(os.getloadavg()[0], 2),
    'packages': dict(_versions(packages)),
  }


def _versions(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
  """Yields the versions of packages that are installed: no group takes all."""
  for name in packages:
    with contextlib.suppress(metadata.PackageNotFoundError):
      yield name, metadata.version(name)
