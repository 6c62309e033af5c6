"""What happens to long runs: the loop ends as if nothing had happened."""

import os
import pathlib
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.train import optimiser, preemption
from gr2_jax.train import state as state_lib
from gr2_jax.train import step as step_lib
from gr2_jax.train.checkpoint import Checkpointer
from tests.train import toy
from tests.train.toy import STEPS, Batches, Killed


@pytest.fixture(scope='module')
def whole(mesh1, tmp_path_factory):
  """An undisturbed run: its state and its metrics."""
  directory = tmp_path_factory.mktemp('whole')
  state = toy.fit(mesh1, directory, Batches())
  return state, (directory / 'metrics.jsonl').read_text()


def _assert_same(whole, state, directory):
  assert toy.same_bits(whole[0], state)
  assert (directory / 'metrics.jsonl').read_text() == whole[1]


def test_killed_in_the_middle_of_a_write(whole, mesh1, tmp_path, monkeypatch):
  """What is on disk just before a checkpoint gets its name is what is left."""
  copies = []

  def snapshot(source):
    if 'orbax-checkpoint-tmp' in str(source):
      copies.append(tmp_path / f'copy_{len(copies)}')
      shutil.copytree(tmp_path / 'run', copies[-1])

  for name in ('rename', 'replace'):
    original = getattr(os, name)

    def moves(source, target, *args, original=original, **kwargs):
      snapshot(source)
      return original(source, target, *args, **kwargs)

    monkeypatch.setattr(os, name, moves)
  toy.fit(mesh1, tmp_path / 'run', Batches())
  monkeypatch.undo()
  assert len(copies) >= 3
  half = 0
  for copy in copies[:: len(copies) // 3]:
    half += any('tmp' in p.name for p in (copy / 'checkpoints').iterdir())
    _assert_same(whole, toy.fit(mesh1, copy, Batches()), copy)
    names = [p.name for p in (copy / 'checkpoints').iterdir()]
    assert sorted(names) == ['6', '7']
  assert half >= 3


@pytest.mark.parametrize(
  ('number', 'code', 'place'),
  [
    *((signal.SIGTERM, preemption.EXIT_CODE, place) for place in (0, 2, 3, 6)),
    (signal.SIGINT, preemption.INTERRUPTED, 3),
  ],
)
def test_a_signal_saves_and_ends_with_its_own_code(
  whole, mesh1, tmp_path, number, code, place
):
  def terminate(at):
    if at == place:
      os.kill(os.getpid(), number)

  before = signal.getsignal(number)
  with pytest.raises(SystemExit) as ended:
    toy.fit(mesh1, tmp_path, Batches(at=terminate))
  assert ended.value.code == code
  assert f'is saved after step {place + 1} of' in ended.value.message
  assert (preemption.EXIT_CODE, preemption.INTERRUPTED) == (75, 130)
  assert signal.getsignal(number) == before
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    assert checkpointer.latest == place + 1
  _assert_same(whole, toy.fit(mesh1, tmp_path, Batches()), tmp_path)


def test_an_extra_checkpoint_does_not_ask_whether_to_stop(mesh1, tmp_path):
  """An undisturbed run would not have asked there."""

  def terminate(at):
    if at == 2:
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.raises(SystemExit):
    toy.fit(mesh1, tmp_path, Batches(at=terminate))
  state = toy.fit(mesh1, tmp_path, Batches(), stop=lambda: True)
  assert int(state.step) == 4


@pytest.mark.parametrize(
  ('number', 'code'), [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_outside_of_a_loop_a_signal_ends_at_once(number, code):
  numbers = (signal.SIGTERM, signal.SIGINT)
  before = {each: signal.getsignal(each) for each in numbers}
  preemption.listen()
  try:
    with pytest.raises(SystemExit) as ended:
      os.kill(os.getpid(), number)
      time.sleep(1)
    assert ended.value.code == code
    with pytest.raises(SystemExit), preemption.guard() as preempted:
      assert not preempted(1)
      os.kill(os.getpid(), number)
      assert preempted(2) == code
  finally:
    for each, handler in before.items():
      signal.signal(each, handler)


def test_clock_and_working_directory_do_not_matter(
  whole, mesh1, tmp_path, monkeypatch
):
  with pytest.raises(Killed):
    toy.fit(mesh1, tmp_path, Batches(stop=5))
  now = time.time
  monkeypatch.setattr(time, 'time', lambda: now() - 1e8)
  monkeypatch.setattr(time, 'time_ns', lambda: int((now() - 1e8) * 1e9))
  monkeypatch.chdir('/')
  state = toy.fit(mesh1, tmp_path, Batches())
  _assert_same(whole, state, tmp_path)
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    assert checkpointer.latest == STEPS


def test_a_relative_directory_is_that_of_the_start(
  mesh1, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  toy.fit(mesh1, pathlib.Path('run'), Batches(at=lambda _: os.chdir(elsewhere)))
  assert (tmp_path / 'run' / 'checkpoints' / str(STEPS)).is_dir()
  assert (tmp_path / 'run' / 'metrics.jsonl').exists()


class _Poisoned(Batches):
  """Batches of which some are not finite."""

  def __init__(self, *bad, value=np.nan, **options):
    super().__init__(**options)
    self._bad = bad
    self._value = value

  def __next__(self):
    batch = super().__next__()
    if self.place in self._bad:
      batch['y'][0] = self._value
    return batch


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e30])
def test_an_update_that_is_not_finite_is_skipped(mesh1, tmp_path, value):
  """The loss, or (1e30, whose square is too large) the gradient's norm."""
  state = toy.every(mesh1, tmp_path, _Poisoned(3, value=value))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
  found = toy.records(tmp_path)
  assert [r['step'] for r in found] == [*range(1, STEPS + 1)]
  assert [r['skipped'] for r in found] == [0, 0, 1, 0, 0, 0, 0]
  assert 'loss' not in found[2] and 'loss' in found[3]


def test_a_skipped_update_changes_nothing_but_the_step(mesh1):
  batch = next(Batches())
  state, _ = toy.STEP(toy.start(mesh1), batch)
  before = jax.device_get(state)
  state, pairs = toy.STEP(state, {**batch, 'y': batch['y'] * np.nan})
  assert float(pairs['skipped'][0]) == 1
  assert toy.same_bits(before.params, state.params)
  assert toy.same_bits(before.opt_state, state.opt_state)
  assert int(state.step) == int(before.step) + 1


def test_the_learning_rate_follows_the_updates_that_were_made(mesh1):
  config = optimiser.OptimiserConfig(
    lr=8.0, schedule='constant', warmup_steps=8
  )
  tx = optimiser.make(config)
  update = step_lib.make_train_step(toy.loss, tx)
  state = state_lib.create(toy.start(mesh1).params, tx, mesh1)
  batch, rates = next(Batches()), []
  for scale in (1, np.nan, 1, 1):
    state, pairs = update(state, {**batch, 'y': batch['y'] * scale})
    rates.append(float(pairs['lr'][0]))
  assert rates == [1, 2, 2, 3]


def test_a_bad_part_of_a_batch_is_not_summed_with_the_others(mesh1):
  update = step_lib.make_train_step(toy.loss, toy.TX, microbatches=2)
  batch = next(Batches())
  batch['y'][3] = np.nan
  state = toy.start(mesh1)
  before = jax.device_get(state.params)
  state, pairs = update(state, batch)
  assert float(pairs['skipped'][0]) == 1
  assert toy.same_bits(before, state.params)


def test_too_many_in_a_row_end_the_run_with_the_batch_saved(mesh1, tmp_path):
  with pytest.raises(
    FloatingPointError,
    match=r'Step 6: error, .*loss not finite, 3 steps in a row .*batch_6\.npz',
  ):
    toy.every(mesh1, tmp_path, _Poisoned(2, 4, 5, 6))
  with np.load(tmp_path / 'batch_6.npz') as saved:
    assert np.isnan(saved['y'][0])
    good = Batches()
    good.place = 5
    np.testing.assert_array_equal(saved['x'], next(good)['x'])
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    assert checkpointer.latest == 4


def test_the_count_goes_on_after_a_kill(mesh1, tmp_path):
  with pytest.raises(Killed):
    toy.every(mesh1, tmp_path, _Poisoned(3, 4, 5, stop=4))
  with pytest.raises(FloatingPointError, match='Step 5: .*3 steps in a row'):
    toy.every(mesh1, tmp_path, _Poisoned(3, 4, 5))


def test_a_limit_of_one_ends_at_the_first(mesh1, tmp_path):
  with pytest.raises(FloatingPointError, match='Step 2: .*1 steps in a row'):
    toy.every(mesh1, tmp_path, _Poisoned(2), max_skipped=1)


def test_a_metric_alone_that_is_not_finite_ends_the_run(mesh1, tmp_path):
  def loss(params, batch):
    total, count, metrics = toy.loss(params, batch)
    return total, count, {**metrics, 'odd': (jnp.log(-count), count)}

  step = step_lib.make_train_step(loss, toy.TX)
  with pytest.raises(FloatingPointError, match='Step 1: odd not finite'):
    toy.fit(mesh1, tmp_path, Batches(), step_fn=step)
