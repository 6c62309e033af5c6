"""What is said of settings: all of them, by the docstrings."""

import dataclasses
import pathlib

from gr2_jax import config as config_lib
from gr2_jax import describe, experiment


def _by_name(config):
  return {setting.name: setting for setting in describe.settings(config)}


def test_every_setting_has_a_line():
  found = _by_name(experiment.defaults())
  assert set(found) == set(config_lib.flatten(experiment.defaults()))
  short = [name for name, setting in found.items() if len(setting.help) < 3]
  assert not short


def test_values_defaults_and_sources():
  config = experiment.defaults()
  config.rl.alpha = 0.2
  config.sft.weights = {'answer': 1.0}
  found = _by_name(config)
  alpha = found['rl.alpha']
  assert (alpha.value, alpha.default) == (0.2, 0.02)
  assert alpha.sources == ('N', 'G')
  assert alpha.help.startswith('weight of the format reward; 0.2 [N], less')
  assert found['rl.eps_low'].sources == ('P',)
  # Of the head of the docstring: "all our choice".
  assert found['evaluate.chunk'].sources == ('G',)
  # Inherited, and kept where the default is another.
  assert found['lm.width'].help == 'D, the residual stream.'
  answer = found['sft.weights.answer']
  assert (answer.value, answer.default) == (1.0, 0.5)
  assert answer.help.startswith('mixture of the text rows')
  # Continued over several lines.
  assert found['midtrain.all.workers'].help.endswith('training process.')


def test_the_table_is_narrow_and_tells_what_differs():
  config = experiment.defaults()
  config.rl.alpha = 0.2
  config.data.dir = '/' + 'long/' * 40
  lines = describe.table(describe.settings(config)).splitlines()
  assert len(lines) == 2 * len(config_lib.flatten(config))
  assert max(map(len, lines)) <= describe.WIDTH
  assert 'rl.alpha = 0.2 (default 0.02) [N] [G]' in lines
  assert 'rl.group_size = 8 [N]' in lines
  index = lines.index('rl.group_size = 8 [N]')
  assert lines[index + 1] == '    G, rollouts a prompt; 8 [N].'


def test_the_page_of_settings_is_that_of_the_code():
  path = pathlib.Path(__file__).resolve().parents[1] / 'configs/SETTINGS.md'
  page = describe.page()
  for name in config_lib.flatten(experiment.defaults()):
    assert f'\n| `{name}` | ' in page
  assert path.read_text() == page, (
    f'{path} is stale: run .venv/bin/python -m launch.settings'
  )


def test_docstrings_name_no_field_that_is_gone():
  seen = []

  def walk(cls):
    seen.append(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    assert set(describe.attributes(cls)) == names, cls
    for field in dataclasses.fields(cls):
      if dataclasses.is_dataclass(field.type):
        walk(field.type)

  walk(experiment.Experiment)
  assert len(seen) > 20
