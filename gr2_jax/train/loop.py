"""The training loop: resumable bit for bit."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from gr2_jax import processes, progress, sharding
from gr2_jax.train import metrics as metrics_lib
from gr2_jax.train.checkpoint import Checkpointer
from gr2_jax.train.state import TrainState


class _Window:
  """Sums metrics since the last record; checks the loss of every step."""

  def __init__(self, pairs: Any, directory: pathlib.Path):
    self.pairs = {k: tuple(v) for k, v in (pairs or {}).items()}
    self._pending = None
    self._directory = directory

  def add(self, step: int, pairs: Any) -> None:
    """Takes a step's metrics; reads the ones before, so as not to wait."""
    self.flush()
    self._pending = (step, pairs)

  def flush(self) -> None:
    """Reads the metrics that are still being computed."""
    if self._pending is None:
      return
    step, pairs = self._pending
    self._pending = None
    pairs = jax.device_get(pairs)
    pairs = {k: tuple(float(x) for x in v) for k, v in pairs.items()}
    bad = [k for k, v in pairs.items() if not all(map(math.isfinite, v))]
    if bad:
      raise FloatingPointError(
        f'Step {step}: {", ".join(sorted(bad))} not finite (loss = '
        f'{pairs.get("loss")}, grad_norm = {pairs.get("grad_norm")}, lr = '
        f'{pairs.get("lr")}, as sum and count) in {self._directory}. Lower the '
        'learning rate or look at the batch of that step; the last checkpoint '
        'is from before it.'
      )
    if self.pairs:
      pairs = metrics_lib.combine(self.pairs, pairs, np)
      pairs = {k: tuple(float(x) for x in v) for k, v in pairs.items()}
    self.pairs = pairs

  def take(self) -> dict[str, float]:
    """Returns the means since the last call and starts anew."""
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


@dataclasses.dataclass(frozen=True)
class _Job:
  """The arguments of `fit`, which describes them."""

  step_fn: Callable
  iterator: Any
  num_steps: int
  directory: pathlib.Path
  mesh: jax.sharding.Mesh
  ckpt_every: int
  log_every: int
  desc: str
  evaluate: Callable | None
  show: str
  stop: Callable | None

  def run(self, state: TrainState) -> TrainState:
    """Restores, and goes on from there."""
    writer = metrics_lib.MetricsWriter(self.directory / 'metrics.jsonl')
    with Checkpointer(self.directory / 'checkpoints') as checkpointer:
      found = checkpointer.restore(state)
      start, window = 0, _Window(None, self.directory)
      if found is not None:
        state, iterator_state, meta = found
        start = int(state.step)
      writer.truncate(start)
      if found is not None:
        if start >= self.num_steps or self._ended():
          return state
        self.iterator.set_state(iterator_state)
        window = _Window(meta['window'], self.directory)
      bar = progress.bar(
        total=self.num_steps, desc=self.desc, unit='step', initial=start
      )
      with bar:
        for done in range(start + 1, self.num_steps + 1):
          batch = _next_batch(self.iterator, done - 1, self.num_steps)
          batch = sharding.shard_batch(self.mesh, batch)
          state, pairs = self.step_fn(state, batch)
          window.add(done - 1, pairs)
          saved = self._record(done, state, window, writer, checkpointer, bar)
          bar.update()
          if saved and self._ended():
            break
    return state

  def _ended(self) -> bool:
    if self.stop is None:
      return False
    return processes.on_first(lambda: bool(self.stop()))

  def _record(
    self,
    done: int,
    state: TrainState,
    window: _Window,
    writer: metrics_lib.MetricsWriter,
    checkpointer: Checkpointer,
    bar: Any,
  ) -> bool:
    """Writes what is due after `done` steps; says if a checkpoint was."""
    last = done == self.num_steps
    save = done % self.ckpt_every == 0 or last
    record = {}
    if done % self.log_every == 0 or last:
      record.update(window.take())
      if self.show in record:
        text = f'{self.show} {record[self.show]:.4f}'
        bar.set_postfix_str(text, refresh=False)
    if save:
      window.flush()
      record.update(self.evaluate(state) if self.evaluate else {})
    if record:
      writer.write(done, record)
    if save:
      meta = {'window': window.pairs}
      checkpointer.save(done, state, self.iterator.get_state(), meta)
    return save


def fit(
  state: TrainState,
  step_fn: Callable[[TrainState, Any], tuple[TrainState, dict]],
  iterator: Any,
  num_steps: int,
  directory: pathlib.Path,
  mesh: jax.sharding.Mesh,
  ckpt_every: int = 200,
  log_every: int = 10,
  desc: str = 'train',
  evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
  rules: sharding.Rules = sharding.TRAIN_RULES,
  show: str = 'loss',
  stop: Callable[[], bool] | None = None,
) -> TrainState:
  """Trains until `num_steps`, from the latest checkpoint if there is one.

  A run that was killed anywhere ends with the same bits as an undisturbed one:
  parameters, optimiser, place in the data, and `metrics.jsonl`.

  Args:
    state: the state to start from; donated.
    step_fn: from `step.make_train_step`.
    iterator: of host batches {name: [B, ...]}, the same on every process, with
      `get_state()` and `set_state()`; the state is JSON-able or bytes.
    num_steps: steps in all.
    directory: gets `checkpoints/` and `metrics.jsonl`, whose records are means
      over the steps since the record before.
    mesh: the mesh.
    ckpt_every: steps between checkpoints; the last step always gets one.
    log_every: steps between records.
    desc: what the progress bar says.
    evaluate: numbers to record beside the means, at every checkpoint.
    rules: the rule table.
    show: which metric stands beside the progress bar.
    stop: asked after every checkpoint, and before the first step, whether to
      end early. It must decide by what is on disk (`metrics.jsonl`), so that a
      resumed run decides alike; of several processes the first one decides.

  Returns:
    The state after `num_steps`, or where `stop` ended the run.

  Raises:
    FloatingPointError: a metric became NaN or infinite; names the step.
    ValueError: the data ended too early.
  """
  job = _Job(
    step_fn, iterator, num_steps, pathlib.Path(directory), mesh, ckpt_every,
    log_every, desc, evaluate, show, stop,
  )  # fmt: skip
  with sharding.use(mesh, rules):
    return job.run(state)
