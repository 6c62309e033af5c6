"""The training loop: resumable bit for bit."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from gr2_jax import devices, processes, progress, sharding
from gr2_jax.train import metrics as metrics_lib
from gr2_jax.train import preemption, profile, timing, writers
from gr2_jax.train.checkpoint import Checkpointer
from gr2_jax.train.retention import Policy
from gr2_jax.train.skips import Skips


class _Window:
  """Sums metrics since the last record; checks those of every step."""

  def __init__(self, pairs: Any, skips: Skips):
    self.pairs = {k: tuple(v) for k, v in pairs.items()}
    self.skips = skips
    self._pending = None

  def add(self, step: int, pairs: Any, batch: Any) -> None:
    """Takes a step's metrics; reads the ones before, so as not to wait."""
    self.flush()
    self._pending = (step, pairs, batch)

  def flush(self) -> None:
    """Reads the metrics that are still being computed."""
    if self._pending is None:
      return
    step, pairs, batch = self._pending
    self._pending = None
    pairs = jax.device_get(pairs)
    pairs = {k: tuple(float(x) for x in v) for k, v in pairs.items()}
    pairs = self.skips.check(step, pairs, batch)
    if self.pairs:
      pairs = metrics_lib.combine(self.pairs, pairs, np)
      pairs = {k: tuple(float(x) for x in v) for k, v in pairs.items()}
    self.pairs = pairs

  def take(self) -> dict[str, float]:
    """Returns the means since the last call and starts over."""
    self.flush()
    pairs, self.pairs = self.pairs, {}
    return metrics_lib.means(pairs)


def _next_batch(iterator: Iterator, step: int, num_steps: int) -> Any:
  try:
    return next(iterator)
  except StopIteration:
    raise ValueError(
      f'The data ended after {step} of {num_steps} steps: use an endless '
      'iterator (num_epochs=None) or fewer steps.'
    ) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
  """A training, to be run by `fit`.

  Attributes:
    step_fn: (state, batch) -> (state, metrics), like `step.make_train_step`'s.
    iterator: of host batches {name: [B, ...]}, the same on every process, with
      `get_state()`, JSON-able or bytes, and `set_state()`.
    num_steps: steps in all.
    directory: gets `checkpoints/`; `metrics.jsonl`, means over the steps since
      the record before; `timing.jsonl` (`timing.Clock`, metrics `timing/...`).
    mesh: the mesh.
    ckpt_every: steps between checkpoints; the last step always gets one.
    log_every: steps between records.
    desc: what the progress bar says.
    evaluate: numbers to record beside the means, at every checkpoint.
    rules: the rule table.
    show: which metric stands beside the progress bar.
    stop: asked after every checkpoint, and before the first step, whether to
      end; by what is on disk alone, so that a resumed run decides alike.
    max_skipped: skipped updates in a row (`skips.py`) after which it ends.
    policy: of the checkpoints; names the metric that chooses what is returned.
    work: what a host batch holds, for rates: units by name, and `flops`.
    tracking: where else the numbers go, and which steps are traced.
  """

  step_fn: Callable[[Any, Any], tuple[Any, dict]]
  iterator: Any
  num_steps: int
  directory: pathlib.Path
  mesh: jax.sharding.Mesh
  ckpt_every: int = 200
  log_every: int = 10
  desc: str = 'train'
  evaluate: Callable[[Any], Mapping[str, float]] | None = None
  rules: sharding.Rules = sharding.TRAIN_RULES
  show: str = 'loss'
  stop: Callable[[], bool] | None = None
  max_skipped: int = 3
  policy: Policy | None = None
  work: Callable[[Any], Mapping[str, float]] | None = None
  tracking: writers.Tracking | None = None

  def __post_init__(self):
    """Makes the directory absolute: the working directory may change."""
    object.__setattr__(self, 'directory', self.directory.absolute())

  def fit(self, state: Any) -> Any:
    """Trains until `num_steps`, from the latest checkpoint if there is one.

    Killed anywhere it ends with the same bits as undisturbed: parameters,
    optimiser, `metrics.jsonl`. After SIGTERM it ends too (`preemption.py`).

    Args:
      state: the state to start from, a tree of arrays; donated.

    Returns:
      The best validated state, of equals the first, else the last.

    Raises:
      FloatingPointError: `max_skipped` was reached; names step and batch file.
      ValueError: too little data, another run's checkpoint, or no such metric.
      OSError: a checkpoint could not be written.
    """
    with sharding.use(self.mesh, self.rules):
      return self._run(state)

  def _run(self, state: Any) -> Any:
    """Restores, and continues from there."""
    steps = self.tracking.profile if self.tracking else ''
    path = self.directory / 'checkpoints'
    with (
      Checkpointer(path, self.policy) as checkpointer,
      writers.Writers(self.directory, self.tracking) as writer,
      profile.Profiler(steps, self.directory / 'profile') as profiler,
    ):
      # Shapes alone, so that no more than one state need be held.
      like = jax.tree.map(_shape, state)
      found = checkpointer.restore(like)
      start, meta = 0, {'window': {}, 'skipped': 0}
      if found is not None:
        state, iterator_state, meta = found
        start = checkpointer.latest
      writer.truncate(start)
      if found is not None:
        # `stop` is asked where an undisturbed run would ask it.
        asked = start % self.ckpt_every == 0
        if start >= self.num_steps or (asked and self._ended()):
          return _best(state, like, checkpointer)
        self.iterator.set_state(iterator_state)
      skips = Skips(self.max_skipped, self.directory, meta['skipped'])
      window = _Window(meta['window'], skips)
      clock = timing.Clock(devices.peak_flops(self.mesh.devices.ravel()))
      bar = progress.bar(
        total=self.num_steps,
        desc=self.desc,
        unit='step',
        initial=start,
        compiles=True,
      )
      with bar, preemption.guard() as preempted:
        for done in range(start + 1, self.num_steps + 1):
          with clock.book('data'):
            batch = _next_batch(self.iterator, done - 1, self.num_steps)
            clock.did(self.work(batch) if self.work else {})
            placed = sharding.shard_batch(self.mesh, batch)
          state, pairs = profiler.run(done, self.step_fn, state, placed)
          window.add(done, pairs, batch)
          saved = self._record(
            done,
            state,
            window,
            writer=writer,
            clock=clock,
            checkpointer=checkpointer,
            bar=bar,
          )
          bar.update()
          if code := preempted(done):
            if not saved:
              self._save(done, state, window, checkpointer)
            checkpointer.wait()
            text = f'{self.desc} is saved after step {done} of {self.num_steps}'
            raise preemption.Preempted(code, text)
          if saved and self._ended():
            break
      return _best(state, like, checkpointer)

  def _ended(self) -> bool:
    if self.stop is None:
      return False
    return processes.on_first(lambda: bool(self.stop()))

  def _record(
    self,
    done: int,
    state: Any,
    window: _Window,
    *,
    writer: writers.Writers,
    clock: timing.Clock,
    checkpointer: Checkpointer,
    bar: Any,
  ) -> bool:
    """Writes what is due after `done` steps; returns whether it saved."""
    last = done == self.num_steps
    save = done % self.ckpt_every == 0 or last
    due = done % self.log_every == 0 or last
    record = {}
    if due:
      record.update(window.take())
      if self.show in record:
        text = f'{self.show} {record[self.show]:.4f}'
        bar.set_postfix_str(text, refresh=False)
    if save:
      window.flush()
      with clock.book('evaluation'):
        record.update(self._evaluated(state))
    record, times = metrics_lib.split_timing(record)
    if record:
      writer.write(done, record)
    if save:
      with clock.book('checkpoint'):
        writer.flush()
        self._save(done, state, window, checkpointer, record)
    if due:
      writer.write_timing(done, {**clock.take(), **times})
    return save

  def _evaluated(self, state: Any) -> Mapping[str, float]:
    """Evaluates, and makes sure of what the checkpoints are judged by."""
    if self.evaluate is None:
      return {}
    found = self.evaluate(state)
    metric = self.policy.metric if self.policy else ''
    if metric and metric not in found:
      raise ValueError(
        f'The best checkpoint is to be that of {metric!r}, but the evaluation '
        f'gives {sorted(found)}: name one of these.'
      )
    return found

  def _save(
    self,
    done: int,
    state: Any,
    window: _Window,
    checkpointer: Checkpointer,
    record: Mapping[str, float] | None = None,
  ) -> None:
    window.flush()
    meta = {'window': window.pairs, 'skipped': window.skips.row}
    place = self.iterator.get_state()
    checkpointer.save(done, state, place, meta, record)


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _best(state: Any, like: Any, checkpointer: Checkpointer) -> Any:
  """Returns the best validated state; without validations the latest, given."""
  steps = checkpointer.ranked()
  if not steps or steps[0] == checkpointer.latest:
    return state
  for x in jax.tree.leaves(state):
    x.delete()  # Before there is another one.
  found, *_ = checkpointer.restore(like, steps)
  return found
