"""Programs compiled for TPUs, where `launch/aot.sh` has run once."""

import json
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / '.venv-tpu' / 'bin' / 'python'
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not PYTHON.exists(),
    reason='no .venv-tpu with libtpu: run `bash launch/aot.sh --help` once',
  ),
]


def _run(*arguments):
  return subprocess.run(
    [PYTHON, '-m', 'launch.aot', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_decoding_on_four_chips(tmp_path):
  path = tmp_path / 'report.json'
  done = _run(
    '--config=configs/qwen3_8b_beauty.py:size=0.6b',
    '--topology=v5e:2x2',
    '--programs=prefill,decode',
    f'--output={path}',
  )
  assert done.returncode == 0, done.stderr
  assert 'Qwen3-0.6B (0.60 B) on v5e:2x2' in done.stdout
  report = json.loads(path.read_text())
  decode = report['programs']['decode']
  assert decode['fits'] and decode['bound'] == 'memory'
  # Weights and caches are read once, and only new slots are written.
  assert 0.7 < decode['bandwidth_share'] <= 1
  # Four chips, each with the whole model and rows of its own.
  assert decode['collectives'] == []
  assert report['programs']['prefill']['mfu'] > 0.1


def test_what_does_not_fit_fails():
  done = _run(
    '--config=configs/qwen3_8b_beauty.py:size=32b',
    '--config.mesh.tensor=4',
    '--topology=v5e:2x2',
    '--programs=decode',
  )
  assert done.returncode == 1
  assert 'decode (128 prompts of 480' in done.stderr
  assert 'GiB of a v5e chip that has 15.8' in done.stderr
  assert 'a larger mesh.tensor' in done.stderr
  unknown = _run('--config=configs/tiny.py', '--topology=v9:2x2')
  assert unknown.returncode == 1
  assert "Topology 'v9:2x2': give a chip of" in unknown.stderr
