"""The switch `teacher`: the budgets of answers fit."""

import importlib

import pytest

from configs import beauty
from gr2_jax import experiment
from gr2_jax.text import lengths


@pytest.mark.parametrize('name', ['beauty', 'smollm2_beauty'])
@pytest.mark.parametrize('teacher', ['endpoint', 'local'])
def test_answers_of_a_language_model_have_room(name, teacher):
  get_config = importlib.import_module(f'configs.{name}').get_config
  config = get_config(f'teacher={teacher}')
  assert config.traces.teacher == teacher
  assert config.traces.explanation_tokens == config.rl.explanation_tokens
  found = lengths.budgets(config)
  assert config.rl.explanation_tokens == 128
  assert config.rl.max_new_tokens == 192 >= found.answer == 188
  assert config.sft.train.length == 832 >= found.row


def _checked(config):
  """A config as if its data were there; refused where budgets do not fit."""
  config = config.copy_and_resolve_references()
  config.data.dir = config.data.dir or 'DIR'
  return experiment.read(config)


# All that write traces of lists: the synthetic world writes its own, and the
# ablation of semantic IDs none.
@pytest.mark.parametrize(
  'name',
  ['tiny', 'quickstart', 'ml100k', 'beauty', 'smollm2_beauty']
  + ['qwen3_8b_beauty', 'traces_ablation'],
)
@pytest.mark.parametrize('teacher', ['endpoint', 'local'])
def test_every_config_with_traces_takes_a_language_model(name, teacher):
  get_config = importlib.import_module(f'configs.{name}').get_config
  config, usual = get_config(f'teacher={teacher}'), get_config()
  if 'base' in config:
    config, usual = config.base, usual.base
  run, before = _checked(config), _checked(usual)
  assert (run.traces.teacher, before.traces.teacher) == (teacher, 'rules')
  assert run.traces.explanation_tokens == run.rl.explanation_tokens == 128
  longer = lengths.budgets(run).answer - lengths.budgets(before).answer
  assert run.sft.train.length - before.sft.train.length >= longer > 0


def test_the_rules_stay_as_they_were_and_others_are_named():
  assert beauty.get_config().rl.explanation_tokens == 32
  with pytest.raises(ValueError, match="teacher='gpt': choose rules"):
    beauty.get_config('teacher=gpt')
