"""Training loop: resume bit for bit, metrics without gap or double, meshes."""

import json
import shutil

import jax
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.train import checkpoint
from gr2_jax.train.retention import Policy
from tests.train import toy
from tests.train.toy import STEPS, Batches, Killed


def _bias(state):
  return {'bias': state.params['bias'][0]}


@pytest.fixture(scope='module')
def whole(tmp_path_factory, mesh1):
  """The end of an undisturbed run, and its metrics."""
  directory = tmp_path_factory.mktemp('whole')
  end = toy.fit(mesh1, directory, Batches(), evaluate=_bias)
  return end, (directory / 'metrics.jsonl').read_text()


@pytest.mark.parametrize('as_bytes', [False, True])
@pytest.mark.parametrize('stop', [1, 5])
def test_a_killed_run_ends_with_the_same_bits(
  whole, tmp_path, mesh1, stop, as_bytes
):
  broken = Batches(as_bytes, stop=stop)
  with pytest.raises(Killed):
    toy.fit(mesh1, tmp_path, broken, evaluate=_bias)
  with (tmp_path / 'metrics.jsonl').open('a') as stream:
    stream.write('{"step": 999, "lo')
  again = toy.fit(mesh1, tmp_path, Batches(as_bytes), evaluate=_bias)
  end, lines = whole
  assert toy.same_bits(end, again)
  assert (tmp_path / 'metrics.jsonl').read_text() == lines
  records = [json.loads(line) for line in lines.splitlines()]
  assert [r['step'] for r in records] == [2, 3, 4, 6, 7]
  assert set(records[0]) == {'step', 'bias'}
  assert set(records[1]) >= {'loss', 'grad_norm', 'lr', 'error', 'error_max'}


def test_a_finished_run_returns_at_once(tmp_path, mesh1):
  first = toy.fit(mesh1, tmp_path, Batches())
  again = toy.fit(mesh1, tmp_path, None, step_fn=None)
  assert int(again.step) == STEPS and toy.same_bits(first, again)


def test_stop_ends_after_a_checkpoint_and_stays_ended(tmp_path, mesh1):
  def stop():
    return '"score"' in (tmp_path / 'metrics.jsonl').read_text()

  options = {'evaluate': lambda s: {'score': 1.0}, 'stop': stop}
  first = toy.fit(mesh1, tmp_path, Batches(), **options)
  again = toy.fit(mesh1, tmp_path, None, step_fn=None, **options)
  assert int(first.step) == int(again.step) == 2
  assert toy.same_bits(first, again)


def test_records_are_means_over_the_steps_since_the_last(tmp_path, mesh1):
  toy.fit(mesh1, tmp_path / 'each', Batches(), log_every=1)
  toy.fit(mesh1, tmp_path / 'third', Batches(), log_every=3)
  read = lambda name: [
    json.loads(line)
    for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()
  ]
  each, third = read('each'), read('third')
  for name, reduce in (('loss', np.mean), ('error_max', np.max)):
    want = [reduce([r[name] for r in each[a : a + 3]]) for a in (0, 3, 6)]
    # Sums of three float32 values in float64: equal to rounding.
    np.testing.assert_allclose([r[name] for r in third], want, rtol=1e-6)


def test_data_that_ends_too_early_is_an_error(tmp_path, mesh1):
  with pytest.raises(ValueError, match='ended after 3 of 7 steps'):
    toy.fit(mesh1, tmp_path, Batches(end=3))


def test_eight_devices_train_like_one(tmp_path, mesh1, mesh8):
  one = toy.fit(mesh1, tmp_path / 'one', Batches())
  eight = toy.fit(mesh8, tmp_path / 'eight', Batches())
  for a, b in zip(
    jax.tree.leaves(one.params), jax.tree.leaves(eight.params), strict=True
  ):
    # The same sums in another order, amplified by Adam's division.
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_run_moves_to_other_meshes(tmp_path, mesh1):
  """Saved by one device, continued by eight and by four times two."""
  whole = toy.every(mesh1, tmp_path / 'whole', Batches(rows=8))
  want = [record['loss'] for record in toy.records(tmp_path / 'whole')]
  with pytest.raises(Killed):
    toy.every(mesh1, tmp_path / 'cut', Batches(rows=8, stop=5))
  for name, sizes in {'8': (8, 1, 1), '4x2': (4, 2, 1)}.items():
    mesh = sharding.make_mesh(*sizes)
    shutil.copytree(tmp_path / 'cut', tmp_path / name)
    moved = toy.every(mesh, tmp_path / name, Batches(rows=8))
    assert int(moved.step) == STEPS
    assert moved.params['kernel'].sharding.mesh == mesh
    losses = [record['loss'] for record in toy.records(tmp_path / name)]
    # What one device did is the same; then its sums in another order.
    assert losses[:4] == want[:4]
    np.testing.assert_allclose(losses[4:], want[4:], rtol=1e-5)
    for a, b in zip(
      jax.tree.leaves(moved.params), jax.tree.leaves(whole.params), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-4)


# By step: two equal best ones early, and a fall at the end.
SCORES = {1: 2.0, 2: 9.0, 3: 9.0, 4: 1.0, 5: 3.0, 6: 4.0, 7: 0.0}


def _validated(mesh, directory, iterator, scores=SCORES, **options):
  options = {
    'ckpt_every': 1,
    'evaluate': lambda state: {'score': scores[int(state.step)]},
    'policy': Policy(best='score'),
    **options,
  }
  return toy.fit(mesh, directory, iterator, **options)


@pytest.fixture(scope='module')
def states(tmp_path_factory, mesh1):
  """The state after every step, of a run without validation."""
  found = {}

  def keep(state):
    found[int(state.step)] = jax.device_get(state)
    return {}

  directory = tmp_path_factory.mktemp('states')
  toy.fit(mesh1, directory, Batches(), ckpt_every=1, evaluate=keep)
  return found


def test_the_best_validated_state_is_returned(states, tmp_path, mesh1):
  best = _validated(mesh1, tmp_path / 'best', Batches())
  assert int(best.step) == 2 and toy.same_bits(best, states[2])
  assert not toy.same_bits(best.params, states[7].params)
  assert best.params['kernel'].sharding.mesh == mesh1
  names = [path.name for path in (tmp_path / 'best/checkpoints').iterdir()]
  assert sorted(names) == ['2', '6', '7']
  # Once more: nothing is left to train, and the same comes of it.
  again = _validated(mesh1, tmp_path / 'best', None, step_fn=None)
  assert toy.same_bits(best, again)


@pytest.mark.parametrize(
  ('best', 'fourth', 'want'), [('score', 9.5, 4), ('-score', 0.0, 4)]
)
def test_which_state_is_the_best(tmp_path, mesh1, best, fourth, want):
  scores = {**SCORES, 4: fourth}
  policy = Policy(best=best)
  found = _validated(mesh1, tmp_path, Batches(), scores, policy=policy)
  assert int(found.step) == want


def test_without_validation_it_is_the_last_one(tmp_path, mesh1):
  last = _validated(mesh1, tmp_path / 'no', Batches(), evaluate=None)
  assert int(last.step) == STEPS
  last = _validated(mesh1, tmp_path / 'off', Batches(), policy=Policy())
  assert int(last.step) == STEPS


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, mesh1):
  """What comes of an undisturbed run with validation."""
  return _validated(mesh1, tmp_path_factory.mktemp('best'), Batches())


@pytest.mark.parametrize('stop', range(1, STEPS))
def test_a_killed_run_returns_the_same_best(undisturbed, tmp_path, mesh1, stop):
  with pytest.raises(Killed):
    _validated(mesh1, tmp_path, Batches(stop=stop))
  again = _validated(mesh1, tmp_path, Batches())
  assert toy.same_bits(undisturbed, again)


def test_a_run_that_ends_early_returns_its_best(tmp_path, mesh1):
  def stop():
    return len(toy.records(tmp_path)) == 4

  first = _validated(mesh1, tmp_path, Batches(), stop=stop)
  again = _validated(mesh1, tmp_path, None, step_fn=None, stop=stop)
  assert int(first.step) == 2 and toy.same_bits(first, again)


def test_a_damaged_best_is_told_of_and_the_next_one_taken(
  states, tmp_path, mesh1, caplog
):
  _validated(mesh1, tmp_path / 'best', Batches())
  manifest = tmp_path / 'best' / 'checkpoints' / '2' / 'state'
  shutil.rmtree(manifest)
  found = _validated(mesh1, tmp_path / 'best', None, step_fn=None)
  assert toy.same_bits(found, states[6])
  assert 'checkpoints/2 is damaged' in caplog.text


def test_one_state_is_held_while_the_best_is_read(tmp_path, mesh1, monkeypatch):
  alive = []
  read = checkpoint.Checkpointer._state

  def spy(self, step, body, like):
    alive.append([x.is_deleted() for x in jax.tree.leaves(seen[-1])])
    return read(self, step, body, like)

  monkeypatch.setattr(checkpoint.Checkpointer, '_state', spy)
  seen = []

  def evaluate(state):
    seen.append(state)
    return {'score': SCORES[int(state.step)]}

  _validated(mesh1, tmp_path, Batches(), evaluate=evaluate)
  assert len(seen) == STEPS and len(alive) == 1 and all(alive[0])


def test_a_metric_that_the_evaluation_lacks_is_named(tmp_path, mesh1):
  with pytest.raises(ValueError, match=r"that of 'nll', but .* \['score'\]"):
    _validated(mesh1, tmp_path, Batches(), policy=Policy(best='-nll'))
