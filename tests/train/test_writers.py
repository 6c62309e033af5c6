"""TensorBoard and Weights & Biases: points, resumption, missing packages."""

import importlib.util
import json
import struct
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from gr2_jax.train import writers


def read_points(directory):
  """Reads event files as TensorBoard does: {name: [(step, value)]}.

  A restart drops what came before of its step and later ones.
  """
  points = []
  for path in sorted((directory / 'tensorboard').iterdir()):
    data = path.read_bytes()
    while data:
      # Length, its checksum, the event, its checksum.
      (size,) = struct.unpack('<Q', data[:8])
      event = event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      if event.HasField('session_log'):
        assert event.session_log.status == event_pb2.SessionLog.START
        points = [point for point in points if point[1] < event.step]
      points += [
        (v.tag, event.step, v.simple_value) for v in event.summary.value
      ]
  found = {}
  for name, step, value in points:
    found.setdefault(name, []).append((step, value))
  return found


def _steps(directory, name):
  return [step for step, _ in read_points(directory)[name]]


def _write(directory, first, last, **settings):
  tracking = writers.Tracking(**settings)
  with writers.Writers(directory, tracking) as writer:
    writer.truncate(first)
    for step in range(first + 1, last + 1):
      writer.write(step, {'loss': step / 2, 'text': 'no point'})
      writer.write_timing(step, {'seconds': 1.5})


def test_points_are_those_of_the_files(tmp_path):
  _write(tmp_path, 0, 3)
  points = read_points(tmp_path)
  assert points == {
    'loss': [(1, 0.5), (2, 1.0), (3, 1.5)],
    'timing/seconds': [(1, 1.5), (2, 1.5), (3, 1.5)],
  }
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert json.loads(lines[0]) == {'step': 1, 'loss': 0.5, 'text': 'no point'}
  lines = (tmp_path / 'timing.jsonl').read_text().splitlines()
  assert [json.loads(x) for x in lines[1:2]] == [{'step': 2, 'seconds': 1.5}]


def test_arrays_are_points(tmp_path):
  with writers.Writers(tmp_path, writers.Tracking()) as writer:
    writer.write(1, {'x': jnp.float32(2), 'y': np.float64(3), 'z': 4})
  assert {k: v[0][1] for k, v in read_points(tmp_path).items()} == {
    'x': 2.0, 'y': 3.0, 'z': 4.0,
  }  # fmt: skip


@pytest.mark.parametrize('kept', [0, 2, 5])
def test_a_resumed_run_has_no_point_twice(tmp_path, kept):
  """Killed after step 5, its last checkpoint at `kept`."""
  _write(tmp_path, 0, 5)
  _write(tmp_path, kept, 7)
  for name in ('loss', 'timing/seconds'):
    assert _steps(tmp_path, name) == [1, 2, 3, 4, 5, 6, 7]
  for name in ('metrics.jsonl', 'timing.jsonl'):
    assert (tmp_path / name).read_text().count('\n') == 7


def test_flushed_points_are_on_disk_before_a_checkpoint(tmp_path):
  writer = writers.Writers(tmp_path, writers.Tracking())
  writer.write(1, {'loss': 1.0})
  writer.flush()
  # No close: as after SIGKILL.
  assert _steps(tmp_path, 'loss') == [1]
  writer.__exit__()


def test_nothing_is_opened_before_the_first_record(tmp_path):
  with writers.Writers(tmp_path / 'x', writers.Tracking()) as writer:
    writer.truncate(7)
  assert list((tmp_path / 'x').iterdir()) == []


@pytest.fixture
def wandb(monkeypatch):
  """A package that notes what it is told."""
  calls = []

  class Run:
    def log(self, values, step):
      calls.append((step, values))

    def finish(self):
      calls.append('finish')

  def init(**settings):
    calls.append(settings)
    return Run()

  module = types.ModuleType('wandb')
  module.init = init
  module.__spec__ = importlib.util.spec_from_loader('wandb', None)
  monkeypatch.setitem(sys.modules, 'wandb', module)
  return calls


def test_wandb_gets_the_same_numbers_and_one_run_a_training(tmp_path, wandb):
  directory = tmp_path / 'run' / 'sft'
  for first, last in ((0, 1), (1, 2)):
    _write(directory, first, last, tensorboard=False, wandb='gr2')
  begin, loss, times, finish, again, *_ = wandb
  assert begin == again and finish == 'finish'
  assert begin['project'] == 'gr2' and begin['name'] == 'run/sft'
  assert len(begin['id']) == 16 and begin['resume'] == 'allow'
  assert loss == (1, {'loss': 0.5})
  assert times == (1, {'timing/seconds': 1.5})
  assert not (directory / 'tensorboard').exists()


@pytest.mark.parametrize(
  ('settings', 'package', 'remedy'),
  [
    ({}, 'tensorboardX', 'pip install -r requirements.txt'),
    ({'tensorboard': False, 'wandb': 'x'}, 'wandb', 'pip install wandb'),
  ],
)
def test_a_missing_package_is_an_early_error(
  monkeypatch, settings, package, remedy
):
  known = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda n: None if n == package else known(n)
  )
  with pytest.raises(ModuleNotFoundError, match=f'{package} .*{remedy}'):
    writers.read({'tracking': settings})


def test_wrong_settings_are_named():
  with pytest.raises(ValueError, match='tensorbord: did you mean'):
    writers.read({'tracking': {'tensorbord': True}})
  with pytest.raises(ValueError, match="profile = '3'"):
    writers.read({'tracking': {'profile': '3'}})
  assert writers.read({}) == writers.Tracking()
