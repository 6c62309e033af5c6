"""What a training writes down, and where else it is shown.

`metrics.jsonl` holds what a resumed run repeats bit for bit, `timing.jsonl`
(`timing.py`) what no run repeats. Both also go to TensorBoard and, where a
config asks for it, to Weights & Biases; there the names of the latter begin
with `timing/`.
"""

import dataclasses
import importlib
import importlib.util
import numbers
import pathlib
import time
import uuid
from collections.abc import Mapping
from typing import Any

from gr2_jax import config as config_lib
from gr2_jax import files, processes
from gr2_jax.train import profile as profile_lib
from gr2_jax.train.metrics import TIMING, MetricsWriter


@dataclasses.dataclass(frozen=True)
class Tracking:
  """How the trainings of a run are watched; it changes no result.

  Attributes:
    tensorboard: write TensorBoard's event files, `tensorboard/` beside each
      `metrics.jsonl`.
    wandb: project of Weights & Biases; empty for none.
    profile: 'START:STOP', of which steps of each training XProf gets a trace,
      `profile/` beside `metrics.jsonl`; empty for none.
  """

  tensorboard: bool = True
  wandb: str = ''
  profile: str = ''

  def __post_init__(self):
    if self.profile:
      profile_lib.parse(self.profile)
    for wanted, package, remedy in (
      (
        self.tensorboard,
        'tensorboardX',
        'pip install -r requirements.txt, or tracking.tensorboard = False',
      ),
      (self.wandb, 'wandb', "pip install wandb, or tracking.wandb = ''"),
    ):
      if wanted and importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
          f'The config asks for {package} (section tracking), which is not '
          f'installed: {remedy}.'
        )


def read(config: Mapping[str, Any]) -> Tracking:
  """Returns the section `tracking` of a config, which may lack it.

  Raises:
    ValueError: a setting is unknown or wrong.
    ModuleNotFoundError: it asks for a package that is not installed.
  """
  return config_lib.build(Tracking, config.get('tracking', {}))


class _TensorBoard:
  """Event files without double points after a resumption."""

  def __init__(self, directory: pathlib.Path, first: int):
    # Not its SummaryWriter: its `flush` leaves the events of a queue unwritten
    # (2.6.5), and a killed run would have a gap.
    self._lib = importlib.import_module('tensorboardX.event_file_writer')
    folder = directory / 'tensorboard'
    folder.mkdir(exist_ok=True)
    # Two files of one second would have one name.
    suffix = f'.{time.time_ns()}'
    self._writer = self._lib.EventsWriter(str(folder / 'events'), suffix)
    # Readers drop what earlier files say of this step and later ones.
    start = self._lib.event_pb2.SessionLog.START
    self._add(first, session_log={'status': start})

  def _add(self, step: int, **content: Any) -> None:
    event = self._lib.event_pb2.Event
    self._writer.write_event(event(wall_time=time.time(), step=step, **content))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    points = [{'tag': k, 'simple_value': v} for k, v in values.items()]
    self._add(step, summary={'value': points})

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


class _Wandb:
  """One run of Weights & Biases for each training, resumed with it."""

  def __init__(self, directory: pathlib.Path, project: str):
    path = directory / 'wandb.json'
    if not path.exists():
      files.write_json(path, {'id': uuid.uuid4().hex[:16]})
    self._run = importlib.import_module('wandb').init(
      project=project,
      id=files.read_json(path)['id'],
      # It ignores steps that it knows, which a resumed run repeats bit for bit.
      resume='allow',
      name='/'.join(directory.absolute().parts[-2:]),
      dir=str(directory),
    )

  def write(self, step: int, values: Mapping[str, float]) -> None:
    self._run.log(dict(values), step=step)

  def flush(self) -> None:
    """Its own process sends what it was given."""

  def close(self) -> None:
    self._run.finish()


class Writers:
  """The files of one training; made by its loop, used as a context manager."""

  def __init__(self, directory: pathlib.Path, tracking: Tracking | None):
    """Opens nothing yet.

    Args:
      directory: gets `metrics.jsonl` and `timing.jsonl`.
      tracking: where else to write; None for nowhere.
    """
    self._directory = pathlib.Path(directory)
    self._tracking = tracking
    self._metrics = MetricsWriter(self._directory / 'metrics.jsonl')
    self._timing = MetricsWriter(self._directory / 'timing.jsonl')
    self._first = 1
    self._sinks = None

  def truncate(self, step: int) -> None:
    """Drops what is written of later steps than `step`, and half lines."""
    self._first = step + 1
    for writer in (self._metrics, self._timing):
      writer.truncate(step)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Writes a record of metrics; see `MetricsWriter.write`."""
    self._metrics.write(step, values)
    self._send(step, values)

  def write_timing(self, step: int, values: Mapping[str, float]) -> None:
    """Writes a record of times, those of the first process."""
    self._timing.write(step, values)
    self._send(step, {f'{TIMING}{k}': v for k, v in values.items()})

  def flush(self) -> None:
    """Brings to disk what a checkpoint will not repeat."""
    for sink in self._sinks or ():
      sink.flush()

  def _send(self, step: int, values: Mapping[str, Any]) -> None:
    if self._sinks is None:
      self._sinks = self._open()
    values = {k: getattr(v, 'item', lambda v=v: v)() for k, v in values.items()}
    values = {k: v for k, v in values.items() if isinstance(v, numbers.Real)}
    for sink in self._sinks:
      sink.write(step, values)

  def _open(self) -> list[Any]:
    if self._tracking is None or not processes.is_first():
      return []
    sinks = []
    if self._tracking.tensorboard:
      sinks.append(_TensorBoard(self._directory, self._first))
    if self._tracking.wandb:
      sinks.append(_Wandb(self._directory, self._tracking.wandb))
    return sinks

  def __enter__(self) -> 'Writers':
    return self

  def __exit__(self, *exc: Any) -> None:
    for sink in self._sinks or ():
      sink.close()
