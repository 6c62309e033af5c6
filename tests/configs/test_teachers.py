"""The switch `teacher`: the budgets of answers fit."""

import importlib

import pytest

from configs import beauty
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


def test_the_rules_stay_as_they_were_and_others_are_named():
  assert beauty.get_config().rl.explanation_tokens == 32
  with pytest.raises(ValueError, match="teacher='gpt': choose rules"):
    beauty.get_config('teacher=gpt')
