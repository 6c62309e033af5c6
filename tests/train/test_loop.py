"""Training loop: resume bit for bit, metrics without gap or double, NaN."""

import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import devices, sharding
from gr2_jax.train import loop, optimiser, state, step, timing, writers
from gr2_jax.train.checkpoint import Checkpointer

STEPS = 7


class Killed(Exception):
  """Stands for SIGKILL."""


class Batches:
  """An endless iterator whose state is its place, as a dict or as bytes."""

  def __init__(self, as_bytes=False, stop=None, end=None):
    self.place = 0
    self.as_bytes = as_bytes
    self.stop = stop
    self.end = end

  def __next__(self):
    if self.place == self.stop:
      raise Killed
    if self.place == self.end:
      raise StopIteration
    rng = np.random.default_rng(self.place)
    self.place += 1
    x = rng.normal(size=(4, 3)).astype(np.float32)
    return {'x': x, 'y': x.sum(-1) + 1}

  def get_state(self):
    value = {'place': self.place}
    return json.dumps(value).encode() if self.as_bytes else value

  def set_state(self, value):
    if self.as_bytes:
      value = json.loads(value.decode())
    self.place = value['place']


def _loss(params, batch):
  error = batch['x'] @ params['kernel'] + params['bias'] - batch['y']
  square = jnp.square(error)
  count = jnp.float32(square.size)
  metrics = {
    'error': (jnp.abs(error).sum(), count),
    'error_max': (jnp.abs(error).max(), jnp.float32(1)),
  }
  return square.sum(), count, metrics


TX = optimiser.make(optimiser.OptimiserConfig(lr=0.1, total_steps=STEPS))
STEP = step.make_train_step(_loss, TX)


def _start(mesh):
  params = {'kernel': np.full(3, 0.3, np.float32), 'bias': np.zeros(1, 'f')}
  return state.create(sharding.replicate(mesh, params), TX, mesh)


def _fit(mesh, directory, iterator, step_fn=STEP, **options):
  options = {'ckpt_every': 2, 'log_every': 3, **options}
  return loop.fit(
    _start(mesh), step_fn, iterator, STEPS, directory, mesh, **options
  )


def _same_bits(a, b):
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


@pytest.mark.parametrize('as_bytes', [False, True])
@pytest.mark.parametrize('stop', [1, 5])
def test_a_killed_run_ends_with_the_same_bits(tmp_path, mesh1, stop, as_bytes):
  evaluate = lambda s: {'bias': s.params['bias'][0]}
  whole = _fit(mesh1, tmp_path / 'a', Batches(), evaluate=evaluate)
  broken = Batches(as_bytes, stop=stop)
  with pytest.raises(Killed):
    _fit(mesh1, tmp_path / 'b', broken, evaluate=evaluate)
  with (tmp_path / 'b' / 'metrics.jsonl').open('a') as stream:
    stream.write('{"step": 999, "lo')
  again = _fit(mesh1, tmp_path / 'b', Batches(as_bytes), evaluate=evaluate)
  assert _same_bits(whole, again)
  lines = (tmp_path / 'a' / 'metrics.jsonl').read_text()
  assert (tmp_path / 'b' / 'metrics.jsonl').read_text() == lines
  records = [json.loads(line) for line in lines.splitlines()]
  assert [r['step'] for r in records] == [2, 3, 4, 6, 7]
  assert set(records[0]) == {'step', 'bias'}
  assert set(records[1]) >= {'loss', 'grad_norm', 'lr', 'error', 'error_max'}


def test_a_finished_run_returns_at_once(tmp_path, mesh1):
  first = _fit(mesh1, tmp_path, Batches())
  again = _fit(mesh1, tmp_path, None, step_fn=None)
  assert int(again.step) == STEPS and _same_bits(first, again)


def test_stop_ends_after_a_checkpoint_and_stays_ended(tmp_path, mesh1):
  def stop():
    return '"score"' in (tmp_path / 'metrics.jsonl').read_text()

  options = {'evaluate': lambda s: {'score': 1.0}, 'stop': stop}
  first = _fit(mesh1, tmp_path, Batches(), **options)
  again = _fit(mesh1, tmp_path, None, step_fn=None, **options)
  assert int(first.step) == int(again.step) == 2
  assert _same_bits(first, again)


def test_records_are_means_over_the_steps_since_the_last(tmp_path, mesh1):
  _fit(mesh1, tmp_path / 'each', Batches(), log_every=1)
  _fit(mesh1, tmp_path / 'third', Batches(), log_every=3)
  read = lambda name: [
    json.loads(line)
    for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()
  ]
  each, third = read('each'), read('third')
  for name, reduce in (('loss', np.mean), ('error_max', np.max)):
    want = [reduce([r[name] for r in each[a : a + 3]]) for a in (0, 3, 6)]
    # Sums of three float32 values in float64: equal to rounding.
    np.testing.assert_allclose([r[name] for r in third], want, rtol=1e-6)


def test_nan_names_its_step_and_leaves_the_checkpoint_before(tmp_path, mesh1):
  class Poisoned(Batches):
    def __next__(self):
      batch = super().__next__()
      if self.place == 6:
        batch['y'][0] = np.nan
      return batch

  with pytest.raises(FloatingPointError, match=r'Step 5: .*loss.*not finite'):
    _fit(mesh1, tmp_path, Poisoned())
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    assert checkpointer.latest == 4


def test_data_that_ends_too_early_is_an_error(tmp_path, mesh1):
  with pytest.raises(ValueError, match='ended after 3 of 7 steps'):
    _fit(mesh1, tmp_path, Batches(end=3))


def test_eight_devices_train_like_one(tmp_path, mesh1, mesh8):
  one = _fit(mesh1, tmp_path / 'one', Batches())
  eight = _fit(mesh8, tmp_path / 'eight', Batches())
  for a, b in zip(
    jax.tree.leaves(one.params), jax.tree.leaves(eight.params), strict=True
  ):
    # The same sums in another order, amplified by Adam's division.
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_run_moves_to_another_mesh(tmp_path, mesh1, mesh8):
  with pytest.raises(Killed):
    _fit(mesh8, tmp_path, Batches(stop=5))
  moved = _fit(mesh1, tmp_path, Batches())
  assert dataclasses.is_dataclass(moved) and int(moved.step) == STEPS
  assert moved.params['kernel'].sharding.mesh == mesh1


def test_saving_an_old_step_is_an_error(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    assert checkpointer.restore({}) is None
    checkpointer.save(3, {'x': jnp.ones(2)}, None, {'a': 1})
    with pytest.raises(ValueError, match='holds step 3, so step 2'):
      checkpointer.save(2, {'x': jnp.ones(2)})
    got, iterator_state, meta = checkpointer.restore({'x': jnp.zeros(2)})
  assert iterator_state is None and meta == {'a': 1}
  np.testing.assert_array_equal(got['x'], 1)


def _times(directory):
  lines = (directory / 'timing.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_times_have_a_file_of_their_own(tmp_path, mesh1):
  work = lambda batch: {'rows': len(batch['x']), 'flops': 7}
  evaluate = lambda s: {'bias': s.params['bias'][0]}
  _fit(mesh1, tmp_path, Batches(), work=work, evaluate=evaluate)
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
  _fit(mesh8, tmp_path, Batches(), work=lambda batch: {'flops': 4e6})
  for record, steps in zip(_times(tmp_path), (3, 3, 1), strict=True):
    busy = record['seconds/data'] + record['seconds/compute']
    assert record['mfu'] == pytest.approx(steps * 4e6 / busy / 8e3)


def test_a_compilation_in_the_middle_shows(tmp_path, mesh1):
  class Longer(Batches):
    def __next__(self):
      batch = super().__next__()
      if self.place != 5:
        return batch
      return {k: np.concatenate([v, v]) for k, v in batch.items()}

  _fit(mesh1, tmp_path / 'warm', Batches(), log_every=1)
  _fit(mesh1, tmp_path / 'odd', Longer(), log_every=1)
  name = 'compilations/compute'
  assert [record[name] for record in _times(tmp_path / 'odd')[1:4]] == [0] * 3
  # The step itself; nothing else knows the shape of a batch.
  assert [record[name] for record in _times(tmp_path / 'odd')[4:]] == [1, 0, 0]


def test_points_and_traces_of_a_killed_run(tmp_path, mesh1):
  watch = {'tracking': writers.Tracking(profile='3:4'), 'log_every': 1}
  _fit(mesh1, tmp_path / 'a', Batches(), **watch)
  with pytest.raises(Killed):
    _fit(mesh1, tmp_path / 'b', Batches(stop=5), **watch)
  _fit(mesh1, tmp_path / 'b', Batches(), **watch)
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
    _fit(mesh1, tmp_path, Batches(stop=5))
  assert int(_fit(mesh1, tmp_path, Batches()).step) == STEPS
