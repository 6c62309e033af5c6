"""Every config file builds: a wrong name in it is found here, not in a run."""

import importlib
import pathlib

import pytest

from gr2_jax import config as config_lib
from gr2_jax import experiment
from gr2_jax.rl.config import check_mesh
from gr2_jax.stages import pipeline, sweep

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted(
  path.stem
  for path in (ROOT / 'configs').glob('*.py')
  if path.stem not in ('__init__', 'common')
)
SWEEPS = ['reward_world', 'sid_ablation', 'traces_ablation']
# What depends on the data is chosen by these (tests/run/test_sizing.py).
UNSET = ['own']


WEIGHTS = ('midtrain.weights', 'sft.weights')


def _read(config):
  """Checks a config as if its data were there."""
  config = config.copy_and_resolve_references()
  if config.data.kind == 'generic':
    config.data.dir = config.data.dir or 'DIR'
  return experiment.read(config)


def _names(config):
  flat = config_lib.flatten(config)
  return {name for name in flat if not name.startswith(WEIGHTS)}


@pytest.mark.parametrize('name', sorted({*NAMES} - {*SWEEPS, *UNSET}))
def test_every_config_has_every_setting_and_none_contradicts(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  assert _read(config).data.name
  assert _names(config) == _names(experiment.defaults())


@pytest.mark.parametrize('size', ['0.6b', '1.7b', '8b', '32b'])
def test_all_batches_fit_a_pod(size):
  module = importlib.import_module('configs.qwen3_8b_beauty')
  config = module.get_config(f'size={size}')
  mesh = config.mesh
  parts = 64 // mesh.tensor
  assert (mesh.data, mesh.fsdp) == (1, -1)
  run = _read(config)
  rl = run.rl
  check_mesh(rl, parts, 'list')
  check_mesh(rl, parts, 'likelihood')
  assert rl.explained_per_step > 0 < run.sft.explained
  phases = [
    (run.midtrain.new_rows, []),
    (run.midtrain.all, []),
    (run.sft.train, [run.sft.lists, run.sft.explained]),
  ]
  for train, more in phases:
    for rows in (train.batch_size, *more):
      assert rows % (parts * train.microbatches) == 0


@pytest.mark.parametrize(
  'name, arg, folds',
  [
    ('beauty', '', 0),
    ('beauty', 'source=sasrec', 2),
    ('beauty', 'source=sasrec,literature', 0),
    ('smollm2_beauty', '', 0),
    ('qwen3_8b_beauty', '', 0),
  ],
)
def test_no_language_model_is_mid_trained_for_folds(name, arg, folds):
  config = importlib.import_module(f'configs.{name}').get_config(arg)
  assert config.candidates.folds == folds
  assert config.candidates.fold_use == 'head'


@pytest.mark.parametrize('name', SWEEPS)
def test_every_run_of_a_sweep_builds(name):
  swept = importlib.import_module(f'configs.{name}').get_config()
  runs = [(run, dict(changes)) for run, changes in swept.runs]
  assert len({run for run, _ in runs}) == len(runs)
  assert len({config_lib.fingerprint(c) for _, c in runs}) == len(runs)
  for _, changes in runs:
    config = sweep.changed(swept.base, changes, 1)
    _read(config)
    assert _names(config) == _names(experiment.defaults())


@pytest.mark.parametrize('name', NAMES)
def test_the_docstring_holds_the_command(name):
  text = importlib.import_module(f'configs.{name}').__doc__
  assert f'--config=configs/{name}.py' in text


def test_stages_that_do_not_exist_are_named(tmp_path):
  with pytest.raises(ValueError, match=r"No stage \['train'\]"):
    pipeline.run(None, tmp_path, ['train'])
