"""Worker processes of the input pipeline; they start in seconds."""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags

from gr2_jax.data import pipeline, shards

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Source:
  """Examples of 2 to 12 tokens; all tokens of one name it."""

  def __init__(self, size):
    self.size = size

  def __len__(self):
    return self.size

  def __getitem__(self, index):
    length = 2 + index % 11
    weights = np.ones(length, np.float32)
    weights[0] = 0
    return {'tokens': np.full(length, index, np.int32), 'weights': weights}


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A folder of shards."""
  # Grain asks for its flags, which programs have parsed.
  flags.FLAGS.mark_as_parsed()
  folder = tmp_path_factory.mktemp('shards') / 'it'
  shards.write(Source(500), folder, 4)
  return folder


def _iterator(folder, workers, **changes):
  fields = {'length': 16, 'batch_size': 3, 'seed': 7, **changes}
  source = {'it': shards.Shards(folder)}
  return pipeline.lm_iterator(source, {'it': 1.0}, workers=workers, **fields)


def _assert_same(left, right):
  assert left.keys() == right.keys()
  for name in left:
    assert left[name].dtype == right[name].dtype
    np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.slow
def test_two_workers_give_the_same_batches_each_time_and_resume(written):
  iterator = _iterator(written, 2)
  first = [next(iterator) for _ in range(5)]
  state = json.loads(json.dumps(iterator.get_state()))
  expected = [next(iterator) for _ in range(7)]
  iterator.close()
  fresh = _iterator(written, 2)
  _assert_same(next(fresh), first[0])
  # Also after it has gone elsewhere.
  fresh.set_state(state)
  for batch in expected:
    _assert_same(next(fresh), batch)
  fresh.close()


def test_another_number_of_workers_cannot_continue(written):
  iterator = _iterator(written, 0)
  state = iterator.get_state()
  state = {**state, 'made_of': {**state['made_of'], 'workers': 2}}
  with pytest.raises(ValueError, match="'workers': .2, None."):
    iterator.set_state(state)


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2, 3])
def test_epochs_have_every_example_as_often(workers, written):
  iterator = _iterator(written, workers)
  seen = collections.Counter()
  # A row has about two examples: some four epochs.
  for _ in range(350):
    batch = next(iterator)
    first = (batch['positions'] == 0) & (batch['segments'] > 0)
    seen.update(batch['tokens'][first].tolist())
  iterator.close()
  assert set(seen) == set(range(500))
  # Each worker holds back the rows that it is packing.
  assert max(seen.values()) - min(seen.values()) <= 3


@pytest.mark.slow
def test_one_worker_gives_what_the_process_itself_gives(written):
  alone, iterator = _iterator(written, 0), _iterator(written, 1)
  for _ in range(30):
    _assert_same(next(iterator), next(alone))
  iterator.close()


@pytest.mark.slow
def test_errors_of_workers_come_through(written):
  iterator = _iterator(written, 2, length=8)
  with pytest.raises(ValueError, match='above length=8'):
    for _ in range(50):
      next(iterator)
  iterator.close()


def test_iterators_with_an_end_have_no_workers(written):
  with pytest.raises(ValueError, match='workers=2 with num_epochs=1'):
    _iterator(written, 2, num_epochs=1)


_PARENT = """\
import multiprocessing, sys, time
from absl import flags
from gr2_jax.data import pipeline, shards
import pathlib

if __name__ == '__main__':
  flags.FLAGS.mark_as_parsed()
  source = {'it': shards.Shards(pathlib.Path(sys.argv[1]))}
  iterator = pipeline.lm_iterator(source, {'it': 1.0}, 16, 3, seed=7, workers=2)
  next(iterator), next(iterator)
  pids = [child.pid for child in multiprocessing.active_children()]
  print(*pids, flush=True)
  time.sleep(600)
"""


def _alive(pid):
  stat = pathlib.Path(f'/proc/{pid}/stat')
  return stat.exists() and stat.read_text().rsplit(')')[-1].split()[0] != 'Z'


@pytest.mark.slow
def test_workers_end_with_a_killed_process(written, tmp_path):
  script = tmp_path / 'parent.py'
  script.write_text(_PARENT)
  with subprocess.Popen(
    [sys.executable, script, written],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  ) as parent:
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(map(_alive, pids))
    parent.send_signal(signal.SIGKILL)
  for _ in range(300):
    if not any(map(_alive, pids)):
      break
    time.sleep(0.1)
  assert not any(map(_alive, pids))
