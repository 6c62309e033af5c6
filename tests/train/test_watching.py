"""Times, TensorBoard, traces and compilations of a training."""

import json
import pickle

import numpy as np
import pytest

from gr2_jax import devices
from gr2_jax.train import timing, writers
from tests.train import toy
from tests.train.toy import STEPS, Batches, Killed


def _times(directory):
  lines = (directory / 'timing.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_times_have_a_file_of_their_own(tmp_path, mesh1):
  work = lambda batch: {'rows': len(batch['x']), 'flops': 7}
  evaluate = lambda s: {'bias': s.params['bias'][0]}
  toy.fit(mesh1, tmp_path, Batches(), work=work, evaluate=evaluate)
  records = _times(tmp_path)
  assert [record['step'] for record in records] == [3, 6, 7]
  for record in records:
    parts = [record[f'seconds/{part}'] for part in timing.PARTS]
    assert min(parts) > 0 and sum(parts) == pytest.approx(record['seconds'])
    assert record['rows_per_second'] > 0
    assert 'mfu' not in record, 'a CPU has no peak'
  metrics = (tmp_path / 'metrics.jsonl').read_text()
  assert 'second' not in metrics and 'compilations' not in metrics


def test_mfu_is_of_the_devices_of_the_mesh(tmp_path, mesh8, monkeypatch):
  monkeypatch.setattr(devices, 'peak_flops', lambda found: 1e3 * len(found))
  toy.fit(mesh8, tmp_path, Batches(), work=lambda batch: {'flops': 4e6})
  for record, steps in zip(_times(tmp_path), (3, 3, 1), strict=True):
    busy = record['seconds/data'] + record['seconds/compute']
    assert record['mfu'] == pytest.approx(steps * 4e6 / busy / 8e3)


def test_a_compilation_in_the_middle_shows(tmp_path, mesh1):
  class Longer(Batches):
    def __next__(self):
      batch = super().__next__()
      if self.place != 5:
        return batch
      return {k: np.concatenate([v, v, v]) for k, v in batch.items()}

  toy.fit(mesh1, tmp_path / 'warm', Batches(), log_every=1)
  toy.fit(mesh1, tmp_path / 'odd', Longer(), log_every=1)
  name = 'compilations/compute'
  assert [record[name] for record in _times(tmp_path / 'odd')[1:4]] == [0] * 3
  # The step itself; nothing else knows the shape of a batch.
  assert [record[name] for record in _times(tmp_path / 'odd')[4:]] == [1, 0, 0]


def test_points_and_traces_of_a_killed_run(tmp_path, mesh1):
  watch = {'tracking': writers.Tracking(profile='3:4'), 'log_every': 1}
  toy.fit(mesh1, tmp_path / 'a', Batches(), **watch)
  with pytest.raises(Killed):
    toy.fit(mesh1, tmp_path / 'b', Batches(stop=5), **watch)
  toy.fit(mesh1, tmp_path / 'b', Batches(), **watch)
  for name in ('a', 'b'):
    assert [r['step'] for r in _times(tmp_path / name)] == [
      *range(1, STEPS + 1)
    ]
    assert list((tmp_path / name).glob('profile/plugins/profile/*/*.xplane.pb'))
    assert list((tmp_path / name).glob('tensorboard/events.*'))
  assert (tmp_path / 'a' / 'metrics.jsonl').read_text() == (
    tmp_path / 'b' / 'metrics.jsonl'
  ).read_text()


def test_checkpoints_are_read_without_pickle(tmp_path, mesh1, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('unpickled')

  for name in ('load', 'loads', 'Unpickler'):
    monkeypatch.setattr(pickle, name, refuse)
  with pytest.raises(Killed):
    toy.fit(mesh1, tmp_path, Batches(stop=5))
  assert int(toy.fit(mesh1, tmp_path, Batches()).step) == STEPS
