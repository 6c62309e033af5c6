"""The pipeline from a real pretrained model: a few steps of each stage."""

import pathlib
import subprocess
import sys

import pytest

from gr2_jax import files
from gr2_jax.lm import hf

ROOT = pathlib.Path(__file__).resolve().parents[2]
BEAUTY = ROOT.parent / 'shared/data/amazon_beauty_2014'


def _launch(module, *arguments):
  # On the devices that the machine has, not on eight that share them.
  command = [sys.executable, '-m', f'launch.{module}', *arguments]
  subprocess.run(command, cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.parametrize('lora', [0, 8])
def test_every_stage_runs(lora, tmp_path):
  if not BEAUTY.exists():
    pytest.skip(f'{BEAUTY} is not here')
  _launch(
    'pipeline',
    f'--config=tests/integration/smollm2_few.py:lora={lora}',
    f'--config.data.dir={BEAUTY}',
    f'--workdir={tmp_path}',
  )
  rerank = files.read_json(tmp_path / 'report.json')['rerank']
  assert rerank['systems']['rl']['valid_rate'] == 1
  midtrain = files.read_json(tmp_path / 'midtrain' / 'summary.json')
  assert midtrain['parameters'] > 134e6
  # Before anything is learned a pretrained model knows English.
  assert midtrain['perplexity']['general_text'] < 1000
  _launch(
    'export',
    f'--workdir={tmp_path}',
    f'--output={tmp_path / "out"}',
  )
  shape, _ = hf.load(tmp_path / 'out', scan=True, param_dtype='bfloat16')
  assert shape.layers == 30 and shape.vocab_size > 49_152
