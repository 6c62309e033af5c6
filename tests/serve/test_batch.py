"""Beam gives the bytes of the local command; tests/README.md has the command.

The model is small and real; the commands are real.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from gr2_jax.data import dataset
from tests.serve import beam_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Beam and Dask have warnings of their own.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('default')]
DIRECT = '--runner=DirectRunner'
CODE = """
from absl import app
from launch import rerank as command
from gr2_jax import rerank
from gr2_jax.serve import scoring
from gr2_jax.run import artifacts
from tests.serve import beam_model
rerank.load = scoring.load = beam_model.load
artifacts.open_run = lambda *given: None
app.run(command.main)
"""
LISTS, BROKEN = 60, {3: '{', 40: '{"history": [], "candidates": ["i1"]}'}


@pytest.fixture(scope='module', autouse=True)
def _path():
  """Workers find the modules of this repository, and the small model."""
  pytest.importorskip('apache_beam')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('PYTHONPATH', str(ROOT))
    patch.setenv('JAX_PLATFORMS', 'cpu')
    yield


@pytest.fixture(scope='module')
def dask():
  """Options of a runner on two workers, each a process."""
  distributed = pytest.importorskip('distributed')
  with distributed.LocalCluster(
    n_workers=2, threads_per_worker=1, dashboard_address=None
  ) as cluster:
    yield (
      '--runner=apache_beam.runners.dask.dask_runner.DaskRunner '
      f'--dask_client_address={cluster.scheduler_address} '
      '--dask_partition_size=1'
    )


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  rng = np.random.default_rng(0)
  path = tmp_path_factory.mktemp('lists') / 'lists.jsonl'
  lines = []
  for number in range(LISTS):
    items = [f'i{i}' for i in rng.permutation(20)]
    # Of one length, so that few programs are compiled.
    record = {
      'history': items[:4],
      'candidates': items[8:12],
      'number': number,
    }
    lines.append(BROKEN.get(number, json.dumps(record)))
  path.write_text(''.join(line + '\n' for line in lines))
  return path


def _command(source, output, *flags):
  given = f'--workdir={source.parent}', f'--input={source}'
  # Parts of 16 lines: four of them.
  return subprocess.run(
    [
      *(sys.executable, '-c', CODE, *given, f'--output={output}'),
      *('--batch_size=2', *flags),
    ],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )


@pytest.fixture(scope='module', params=['direct', 'explained'])
def local(request, source):
  """What the local command writes: the mode and the bytes."""
  output = source.with_name(f'{request.param}.jsonl')
  done = _command(source, output, f'--mode={request.param}')
  assert done.returncode == 3, done.stderr
  return request.param, output.read_bytes()


def _check(source, output, local, options):
  mode, expected = local
  done = _command(source, output, f'--mode={mode}', f'--beam={options}')
  assert done.returncode == 3, done.stderr
  assert '2 lines have no answer' in done.stderr
  assert output.read_bytes() == expected
  errors = output.with_name(f'{output.stem}.errors.jsonl').read_text()
  found = [json.loads(line) for line in errors.splitlines()]
  assert [each['line'] for each in found] == list(BROKEN.values())
  assert found[0]['error'].startswith(f'{source}:4: not JSON')
  # No intermediate file is left.
  assert not list(output.parent.glob('.*'))


def test_the_direct_runner_gives_the_same_bytes(source, local, tmp_path):
  lines = [json.loads(line) for line in local[1].splitlines()]
  assert len(lines) == LISTS
  assert [i for i, line in enumerate(lines) if 'error' in line] == [*BROKEN]
  explained = {bool(line.get('explanation')) for line in lines}
  assert (True in explained) == (local[0] == 'explained')
  _check(source, tmp_path / 'out.jsonl', local, DIRECT)


def test_two_workers_of_dask_give_the_same_bytes(source, local, dask, tmp_path):
  _check(source, tmp_path / 'out.jsonl', local, dask)


def test_a_killed_worker_changes_nothing(source, local, dask, tmp_path):
  fatal = source.with_name(beam_model.FATAL)
  fatal.touch()
  _check(source, tmp_path / 'out.jsonl', local, dask)
  assert not fatal.exists()


def test_strict_ends_where_the_local_command_does(source, tmp_path):
  found = []
  for name, flags in (('local', ()), ('beam', (f'--beam={DIRECT}',))):
    output = tmp_path / f'{name}.jsonl'
    done = _command(source, output, '--mode=direct', '--strict', *flags)
    assert done.returncode == 3
    assert f'{source}:4: not JSON' in done.stderr
    found.append(output.read_bytes())
  assert found[0] == found[1] and found[0].count(b'\n') == 3


def test_parquet_gives_what_its_rows_give_as_lines(source, tmp_path):
  pa = pytest.importorskip('pyarrow')
  import pyarrow.parquet

  lines = source.read_text().splitlines()
  rows = [json.loads(x) for i, x in enumerate(lines) if i not in BROKEN]
  table = tmp_path / 'lists.parquet'
  pyarrow.parquet.write_table(
    pa.Table.from_pylist(rows), table, row_group_size=20
  )
  again = tmp_path / 'lists.jsonl'
  again.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  found = []
  for name, given, flags in (
    ('lines', again, ()),
    ('rows', table, ()),
    ('beam', table, (f'--beam={DIRECT}',)),
  ):
    output = tmp_path / f'{name}.out'
    done = _command(given, output, '--mode=direct', *flags)
    assert done.returncode == 0, done.stderr
    found.append(output.read_bytes())
  assert found[0] == found[1] == found[2]


def test_codes_of_items_come_in_their_order(tmp_path, monkeypatch):
  from gr2_jax.ranker import new_items
  from gr2_jax.serve import batch

  monkeypatch.setattr(new_items, 'PART', 7)
  monkeypatch.setattr(new_items, 'load', beam_model.load_codes)
  items = [
    dataset.Item(f'i{i}', f'T{"x" * i}', ('A', 'B')[: i % 3], price=i / 7)
    for i in range(40)
  ]
  found = batch.codes(items, tmp_path / 'out.jsonl', DIRECT, 'run')
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, beam_model.Codes().codes(items))
  assert not list(tmp_path.iterdir())


def test_a_missing_run_is_told_before_the_pipeline(source, tmp_path):
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'launch.rerank', f'--workdir={tmp_path}'),
      *(f'--input={source}', f'--output={tmp_path}/out', f'--beam={DIRECT}'),
    ],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert done.returncode == 1
  assert 'config.json is missing' in done.stderr
  assert not (tmp_path / 'out').exists()
