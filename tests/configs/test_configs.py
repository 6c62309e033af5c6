"""Every config file builds: a wrong name in it is found here, not in a run."""

import dataclasses
import importlib
import pathlib

import pytest

from gr2_jax import config as config_lib
from gr2_jax.data import sources, splits
from gr2_jax.lm import layout
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank.sasrec import SASRecConfig
from gr2_jax.rl.config import RLConfig, check_mesh
from gr2_jax.sid.config import SidConfig
from gr2_jax.stages import road, sweep
from gr2_jax.stages.candidates import CandidatesConfig
from gr2_jax.stages.evaluate import EvaluateConfig
from gr2_jax.stages.midtraining import MidtrainConfig
from gr2_jax.stages.phase import TrainConfig
from gr2_jax.stages.ranking import AnswerConfig, is_by_list
from gr2_jax.stages.sft import SFTConfig
from gr2_jax.stages.teachers import TracesConfig
from gr2_jax.teacher.rules import RulesConfig
from gr2_jax.text.prompts import PromptConfig
from gr2_jax.text.tasks import TaskConfig

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted(
  path.stem
  for path in (ROOT / 'configs').glob('*.py')
  if path.stem not in ('__init__', 'common')
)
SIZES = {
  'width': 8, 'layers': 1, 'heads': 1, 'kv_heads': 1, 'head_dim': 8,
  'mlp_dim': 8,
}  # fmt: skip
SWEEPS = ['reward_world', 'sid_ablation', 'traces_ablation']


@pytest.mark.parametrize('name', sorted(set(NAMES) - set(SWEEPS)))
def test_every_section_builds(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  build = config_lib.build
  data = config_lib.to_dict(config.data)
  build(splits.SplitConfig, data.pop('split'))
  data['dir'] = data['dir'] or 'DIR'
  assert build(sources.SourceConfig, data).name
  sid = build(SidConfig, config.sid)
  prompt = build(PromptConfig, config.text.prompt)
  lm = config_lib.to_dict(config.lm)
  if lm.pop('pretrained', ''):
    # The sizes are the checkpoint's.
    assert set(lm) <= {*layout.RUNTIME, 'lora_rank'}
    lm |= SIZES
  assert build(LMConfig, {'vocab_size': 4096, **lm}).num_params > 0
  midtrain = build(MidtrainConfig, config.midtrain)
  build(TrainConfig, midtrain.new_rows)
  length = build(TrainConfig, midtrain.all).length
  TaskConfig(prompt=prompt, length=length, **midtrain.tasks)
  candidates = build(CandidatesConfig, config.candidates)
  build(SASRecConfig, candidates.sasrec)
  assert candidates.k == prompt.max_candidates
  traces = build(TracesConfig, config.traces)
  build(RulesConfig, traces.rules)
  sft = build(SFTConfig, config.sft)
  train = build(TrainConfig, sft.train)
  rl = build(RLConfig, config.rl)
  build(EvaluateConfig, config.evaluate)
  # An answer fits its budget, and a prompt with its answer fits a row.
  longest = rl.explanation_tokens + candidates.k * (sid.levels + 1) + 3
  longest += sid.levels + 3
  assert longest <= rl.max_new_tokens - rl.overlong_buffer
  # In front of what `max_tokens` counts stands the history in semantic IDs.
  seen = 2 + prompt.retrieval_items * (sid.levels + 2)
  if is_by_list(config) or sft.weights.get('answer', 0):
    assert seen + prompt.max_tokens + longest <= train.length
  assert traces.explanation_tokens == rl.explanation_tokens
  AnswerConfig(rl.max_new_tokens, rl.explanation_tokens, rl.constrain)


@pytest.mark.parametrize('size', ['0.6b', '1.7b', '8b', '32b'])
def test_all_batches_fit_a_pod(size):
  module = importlib.import_module('configs.qwen3_8b_beauty')
  config = module.get_config(f'size={size}')
  mesh = config.mesh
  parts = 64 // mesh.tensor
  assert (mesh.data, mesh.fsdp) == (1, -1)
  rl = config_lib.build(RLConfig, config.rl)
  check_mesh(rl, parts, 'list')
  check_mesh(rl, parts, 'likelihood')
  assert rl.explained_per_step > 0 < config.sft.explained
  phases = {
    'new_rows': (config.midtrain.new_rows, []),
    'all': (config.midtrain.all, []),
    'sft': (config.sft.train, [config.sft.lists, config.sft.explained]),
  }
  for fields, more in phases.values():
    train = config_lib.build(TrainConfig, fields)
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
    config_lib.build(SidConfig, config.sid)
    config_lib.build(RLConfig, config.rl)
    if config.data.kind != 'synthetic':
      config_lib.build(TracesConfig, config.traces)


@pytest.mark.parametrize('name', NAMES)
def test_the_docstring_holds_the_command(name):
  text = importlib.import_module(f'configs.{name}').__doc__
  assert f'--config=configs/{name}.py' in text


def test_a_budget_of_one_place_serves_teacher_and_model():
  config = importlib.import_module('configs.quickstart').get_config()
  config.rl.explanation_tokens = 21
  assert config.traces.explanation_tokens == 21


def test_an_invalid_answer_is_paid_the_default_of_its_setting():
  config = importlib.import_module('configs.common').base()
  defaults = {f.name: f.default for f in dataclasses.fields(RLConfig)}
  assert config.rl.invalid == defaults['invalid']


def test_stages_that_do_not_exist_are_named(tmp_path):
  with pytest.raises(ValueError, match=r"No stage \['train'\]"):
    road.run(None, tmp_path, ['train'])
