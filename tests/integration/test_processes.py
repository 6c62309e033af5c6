"""Several processes of one run: they agree, compute as one, end together."""

import json
import math
import time

import jax
import numpy as np
import pytest

from gr2_jax import sharding
from tests.integration import several, several_worker, world

# Few steps of everything; batches that divide by four devices.
_SETTINGS = {
  'data.name': 'world',
  'data.kind': 'generic',
  'text.pieces': 400,
  'text.prompt.max_tokens': 352,
  'lm.layers': 1,
  'midtrain.new_rows.steps': 0,
  'midtrain.all.steps': 8,
  'midtrain.all.ckpt_every': 4,
  'sft.train.length': 576,
  'sft.train.steps': 4,
  'sft.train.batch_size': 4,
  'sft.train.ckpt_every': 4,
  'sft.train.log_every': 1,
  'candidates.width': 16,
  'candidates.chunk': 64,
  'rl.steps': 2,
  'rl.prompts_per_step': 8,
  'rl.explained_per_step': 16,
}


def _command(data, workdir, **settings):
  settings = {**_SETTINGS, 'data.dir': data, **settings}
  flags = [f'--config.{name}={value}' for name, value in settings.items()]
  config = '--config=configs/tiny.py'
  return ['-m', 'launch.pipeline', config, f'--workdir={workdir}', *flags]


def _finish(run):
  codes = run.wait()
  said = [run.said(index) for index in range(len(codes))]
  assert not any(codes), '\n\n'.join(text[-4000:] for text in said)
  return said


def test_two_processes_agree_and_train_as_one(tmp_path):
  command = ['tests/integration/several_worker.py', str(tmp_path)]
  _finish(several.start(2, 1, command, limit=90))
  first, second = (
    json.loads((tmp_path / f'found_{index}.json').read_text())
    for index in range(2)
  )
  for found in (first, second):
    assert (found['processes'], found['devices']) == (2, 2)
    assert found['told'] == {'by': 0, 'long': 'é' * 5000}
    for name in ('data', 'tensor'):
      assert found[name]['fetched'] == list(range(8))
      assert found[name]['held'] == found[name]['own']
  # The first one holds the lock for both.
  assert first['pid'] != second['pid']
  assert first['lock'] == second['lock'] == first['pid']
  # A workdir in which nothing was written goes with its lock.
  assert not (tmp_path / 'locked').exists()
  assert first['refused'] == 'ValueError: no such thing'
  assert second['refused'].startswith('RuntimeError: The first process failed')
  # Each row lies in one process; where a row's parts lie in both, both have it.
  assert first['data']['own'] + second['data']['own'] == list(range(8))
  assert first['tensor']['own'] == second['tensor']['own'] == list(range(8))
  mesh = sharding.make_mesh(devices=jax.devices()[:2])
  alone = several_worker.train(mesh, tmp_path / 'alone')
  assert first['trained'] == second['trained'] == first['resumed']
  assert first['best'] == second['best'] == first['second'] != first['trained']
  np.testing.assert_allclose(first['trained'], alone, rtol=1e-6)
  lines = (tmp_path / 'cut' / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1, 2, 3, 4]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  directory = tmp_path_factory.mktemp('several') / 'data'
  world.write(directory)
  return directory


@pytest.fixture(scope='module')
def alone(data):
  """One process with four devices, which add up as those of several do.

  A plain run rounds otherwise, and the tokenizer's choices (which code moves,
  which is nearest) make that visible.
  """
  workdir = data.parent / 'alone'
  _finish(several.start(1, 4, _command(data, workdir)))
  return _report(workdir)


def _report(workdir):
  report = json.loads((workdir / 'report.json').read_text())
  for name in ('seconds', 'commit'):
    report.pop(name)
  return report


def _differences(one, other, path=''):
  """Yields what differs by more than rounding."""
  if isinstance(one, dict) and isinstance(other, dict):
    for key in sorted(set(one) | set(other)):
      yield from _differences(one.get(key), other.get(key), f'{path}.{key}')
  elif isinstance(one, list) and isinstance(other, list):
    if len(one) != len(other):
      yield f'{path}: {len(one)} entries, {len(other)}'
    for index, pair in enumerate(zip(one, other, strict=False)):
      yield from _differences(*pair, f'{path}[{index}]')
  elif isinstance(one, float) and isinstance(other, float):
    if not math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6):
      yield f'{path}: {one}, {other}'
  elif one != other:
    yield f'{path}: {one!r}, {other!r}'


def _runs_and_is_skipped(data, workdir, count):
  said = _finish(several.start(count, 4 // count, _command(data, workdir)))
  # One of them logs for all.
  assert 'Stage evaluate: start' in said[0]
  assert not any('Stage evaluate' in text for text in said[1:])
  # Again: all skip all.
  said = _finish(several.start(count, 4 // count, _command(data, workdir)))
  assert said[0].count('finished before, skipped') == 9


@pytest.mark.slow
def test_two_processes_write_the_report_of_one(data, alone):
  workdir = data.parent / 'of_2'
  _runs_and_is_skipped(data, workdir, 2)
  assert not list(_differences(alone, _report(workdir)))


def _records(workdir, stage):
  lines = (workdir / stage / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_four_processes_train_on_the_batches_of_one(data, alone):
  """Lists of the same items; what trains on their columns rounds otherwise.

  Up to the retriever's scores bits are the same. SASRec's column and the norm
  of SFT's first gradient differ by 1e-6 and 2e-7; after four steps of Adam
  losses differ by up to 8e-4. A model that has hardly learned then writes other
  words.
  """
  one, four = data.parent / 'alone', data.parent / 'of_4'
  _runs_and_is_skipped(data, four, 4)
  for stage in ('sid', 'midtrain'):
    assert _records(one, stage) == _records(four, stage)
  for split in ('train', 'valid', 'test'):
    lists = [
      np.load(workdir / 'candidates' / f'{split}.npz')
      for workdir in (one, four)
    ]
    for name in lists[0].files:
      room = 1e-5 if name == 'features' else 0
      pair = [found[name] for found in lists]
      np.testing.assert_allclose(*pair, rtol=0, atol=room, err_msg=name)
  first, *_, last = zip(
    _records(one, 'sft'), _records(four, 'sft'), strict=True
  )
  assert first[0] == pytest.approx(first[1], rel=1e-6)
  assert last[0] == pytest.approx(last[1], rel=2e-3)
  # What these models wrote and how they rank; all else is the report of one.
  written = {'explanations', 'rerank', 'rl', 'sft', 'verdict'}
  left = [
    {name: part for name, part in report.items() if name not in written}
    for report in (alone, _report(four))
  ]
  assert {'baselines', 'retrieval', 'traces'} < left[0].keys()
  assert not list(_differences(*left))


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_where_one_dies_the_other_ends_and_the_run_goes_on(data, victim):
  workdir = data.parent / f'dead_{victim}'
  settings = {
    'midtrain.all.steps': 120,
    'midtrain.all.ckpt_every': 20,
  }
  command = [
    *_command(data, workdir, **settings),
    '--stages=data,sid,midtrain',
  ]
  metrics = workdir / 'midtrain' / 'metrics.jsonl'
  with several.start(2, 1, command, heartbeat=10) as run:
    while not metrics.exists() or metrics.read_text().count('\n') < 3:
      assert run.processes[0].poll() is None, run.said(0)[-4000:]
      assert time.monotonic() < run.deadline
      time.sleep(0.05)
    run.kill(victim)
    code, said = run.wait_for(1 - victim), run.said(1 - victim)
  assert code, said[-4000:]
  assert 'another process ended first' in said or 'another task died' in said
  assert not (workdir / 'midtrain' / 'DONE').exists()
  # With another number of processes, and as many devices.
  said = _finish(several.start(1, 2, command))
  assert 'Stage midtrain: resume' in said[0]
  lines = metrics.read_text().splitlines()
  steps = [json.loads(line)['step'] for line in lines]
  assert steps == list(range(10, 121, 10))
