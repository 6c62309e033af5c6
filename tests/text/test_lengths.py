"""The budgets of tokens, by hand and against what is written."""

from gr2_jax import experiment
from gr2_jax.text import lengths


def test_an_answer_by_hand():
  # open, 4 words, top; wrapped SID of 2, mid; 3 of 2 with 2 separators, close
  # and end.
  assert lengths.words(4) == 6
  assert lengths.head(2) == 5
  assert lengths.answer(2, 3, 4) == 6 + 5 + (3 * 2 + 2 + 2)


def test_the_budgets_of_the_defaults_by_hand():
  config = experiment.defaults()
  found = lengths.budgets(config)
  # 32 words and 2; 4 + 3; ten of 4 codes and a separator, and the end.
  assert found.answer == 34 + 7 + 51 == 92
  assert found.direct == 92 - 32
  # Two tokens, twenty items of 4 codes and 2 wrappers, and the prompt behind.
  assert found.prompt == 2 + 20 * 6 + config.text.prompt.max_tokens
  assert found.row == found.prompt + 92


def test_a_world_has_lists_of_its_own():
  config = experiment.defaults()
  config.data.kind, config.data.world.k, config.candidates.k = 'synthetic', 3, 9
  assert lengths.candidates(config) == 3
  config.data.kind = 'generic'
  assert lengths.candidates(config) == 9
