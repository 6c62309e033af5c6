"""The RL benchmark at tiny sizes: both sides do the same arithmetic."""

import dataclasses

import jax
import numpy as np
import pytest

from gr2_jax.lm.config import LMConfig
from gr2_jax.text import semantic_ids
from launch.bench import rl, tasks
from launch.bench.peers import string_reward, trl_process

TASK = tasks.Task(
  LMConfig(
    vocab_size=128, width=16, layers=1, heads=2, kv_heads=2, head_dim=8,
    mlp_dim=32,
  ),
  prompt=12, new=29, queries=4, group=4, candidates=3,
)  # fmt: skip


@pytest.fixture(scope='module')
def ours(mesh1):
  return rl.Ours(TASK, mesh1)


@pytest.fixture(scope='module')
def samples(ours):
  return ours.samples()


def _flat(x):
  return np.asarray(x).reshape(TASK.queries * TASK.group, -1)


def test_a_task_survives_json():
  assert tasks.load(tasks.dump(TASK)) == TASK


def test_answers_are_valid_and_as_long_as_asked_for(samples):
  found = rl.InPython(TASK, samples).judge()[0]
  assert min(found) > -1
  assert np.asarray(samples.mask).sum(-1).max() == TASK.new


def test_python_on_strings_equals_the_compiled_reward(ours, samples):
  # Some answers are spoilt: the delimiter of their list is another token.
  tokens = np.array(samples.tokens)
  tokens[:, 0] = np.where(tokens[:, 0] == TASK.format.mid, 9, tokens[:, 0])
  spoilt = dataclasses.replace(samples, tokens=jax.numpy.asarray(tokens))
  for given in (samples, spoilt):
    compiled = ours.reward(given)(1)
    found, advantages, varied = rl.InPython(TASK, given).judge()
    valid = np.asarray(compiled.valid).ravel()
    np.testing.assert_array_equal(np.array(found) > -1, valid)
    assert (given is samples) == valid.all()
    # Float32 against Python's float64; the spread divides.
    np.testing.assert_allclose(
      np.asarray(compiled.rewards).ravel(), found, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(np.asarray(compiled.weight) > 0, varied)
    np.testing.assert_allclose(
      np.asarray(compiled.advantages).ravel(), advantages, atol=1e-4
    )
    # Without variance a group stays out of the buffer, at its end.
    kept = np.flatnonzero(varied)
    stored = ours.reward(given, stored=True)(1).buffer
    weight = np.asarray(stored.weight)
    np.testing.assert_array_equal(weight, np.arange(len(weight)) < len(kept))
    np.testing.assert_array_equal(
      np.asarray(stored.advantages)[: len(kept)],
      np.asarray(compiled.advantages)[kept],
    )


def test_python_by_hand():
  sids = [[1, 2], [1, 3], [2, 2]]

  def text(*places):
    texts = (semantic_ids.write(sids[place]) for place in places)
    order = ', '.join(f'"{text}"' for text in texts)
    return '{"explanation": "", "recommendations": [' + order + ']}'

  cases = [
    (text(1, 0, 2), 1, 1 / 3 + 0.2),  # It rose.
    (text(0, 2, 1), 0, 0.2),  # First, and kept there.
    (text(0, 1, 2), 1, 0.0),  # Kept elsewhere: no format reward.
    (text(1, 2, 0), 0, -2 / 3),  # It fell.
    (text(0, 1, 1), 1, -1.0),
    (text(0, 1), 1, -1.0),
    ('no JSON', 1, -1.0),
    ('["a list"]', 1, -1.0),
    ('{"recommendations": [1, 2, 3]}', 1, -1.0),
  ]
  texts, targets, expected = zip(*cases, strict=True)
  found = string_reward.rewards(list(texts), [sids] * len(cases), list(targets))
  assert found == pytest.approx(expected)


def test_a_step_is_split(mesh1):
  # Eight answers to each list, so that each group has variance.
  ours = rl.Ours(dataclasses.replace(TASK, group=8), mesh1)
  ours.step()
  ours.step()
  assert len(ours.seconds) == 2
  for seconds in ours.seconds:
    assert set(seconds) == {'rollout', 'update', 'rest'}
    assert seconds['rollout'] > 0 and seconds['update'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('way', trl_process.WAYS)
def test_trl_makes_steps(way):
  """Runs where TRL is installed; tests/README.md has the command."""
  pytest.importorskip('trl')
  peer = trl_process.Peer(TASK, way)
  for count in (1, 2):
    peer.step()
    assert len(peer.seconds) == count
    assert list(peer.seconds[-1]) == list(trl_process.PARTS)
    assert min(peer.seconds[-1].values()) > 0
  peer.close()


@pytest.mark.slow
def test_a_peer_that_ends_is_an_error():
  pytest.importorskip('trl')
  with pytest.raises(RuntimeError, match='TRL ended with 1'):
    trl_process.Peer(TASK, 'no such way')
