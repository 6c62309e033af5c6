"""The tree of settings: every field a flag, and no two that contradict."""

import pathlib
import random
import re

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from configs import reward_world
from gr2_jax import config as config_lib
from gr2_jax import experiment

# Of ml_collections, which loads config files by it.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)
ROOT = pathlib.Path(__file__).resolve().parents[1]
FILE = str(ROOT / 'configs' / 'quickstart.py')


def _config(changes, base=None):
  """A config that passes all checks, changed by dotted names."""
  config = base or experiment.defaults()
  config = config.copy_and_resolve_references()
  if base is None:
    config.data.name = config.data.kind = 'ml-100k'
  config.update_from_flattened_dict(changes)
  return config


def _get(config, name):
  for key in name.split('.'):
    config = config[key]
  return config


def _parse(arguments):
  """Returns the config of a command line."""
  values = flags.FlagValues()
  argv = ['command', f'--config={FILE}', *arguments]
  config_flags.DEFINE_config_file(
    'config', None, 'A config.', flag_values=values, sys_argv=argv
  )
  values(argv)
  return values.config


def _leaves(section, prefix=''):
  for key, value in section.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def _drawn(value, rng):
  """Another value of the type of `value`."""
  if isinstance(value, bool):
    return not value
  if isinstance(value, int):
    return rng.randrange(-(10**6), 10**6)
  if isinstance(value, float):
    return rng.choice([0.0, 1.0, -2.5, 3e-7, rng.uniform(-1e3, 1e3)])
  if isinstance(value, tuple):
    kind = value[0] if value else 0
    return tuple(_drawn(kind, rng) for _ in range(rng.randrange(1, 4)))
  return rng.choice(['', 'a', 'with space', '/a/b.c', 'ä=:,', "it's"])


# What one flag sets, another flag may set too: they are one setting.
SAME = 'traces.explanation_tokens'


def test_every_setting_is_a_flag_that_is_read_back_typed():
  leaves = dict(_leaves(experiment.defaults()))
  del leaves[SAME]
  names, rng, seen = sorted(leaves), random.Random(0), 0
  rng.shuffle(names)
  for start in range(0, len(names), 30):
    given = {
      name: _drawn(leaves[name], rng) for name in names[start : start + 30]
    }
    config = _parse([f'--config.{k}={v}' for k, v in given.items()])
    for name, value in given.items():
      found = _get(config, name)
      assert (type(found), found) == (type(value), value), name
      seen += 1
  assert seen == len(leaves) >= 200


def test_one_budget_of_explanations_and_a_rate_that_follows():
  config = _parse(['--config.rl.explanation_tokens=21', '--config.rl.lr=0.5'])
  assert config.traces.explanation_tokens == 21
  assert config.direct.lr == 0.5
  config = _parse(['--config.traces.explanation_tokens=20'])
  assert config.rl.explanation_tokens == 20
  # Of its own where it is set.
  config = _parse(['--config.direct.lr=0.25'])
  assert (config.direct.lr, config.rl.lr) == (0.25, 6e-5)


def test_the_defaults_are_those_of_the_dataclasses():
  built = experiment.read(_config({}))
  assert built == experiment.Experiment(data=built.data)
  flat = config_lib.flatten(experiment.defaults())
  assert set(flat) == set(config_lib.flatten(built))


LIST = {'answer.ranking': 'list'}
CASES = [
  ({'rl.group_size': 1}, 'rl.group_size = 1 must be at least 2'),
  ({'rl.max_new_tokens': 91}, 'rl.max_new_tokens = 91 .*take 92 tokens'),
  (
    {**LIST, 'rl.overlong_buffer': 8},
    'less rl.overlong_buffer = 8.*raise rl.max_new_tokens to 100',
  ),
  ({'sft.train.length': 501}, 'sft.train.length = 501.*raise it to 502'),
  ({'candidates.k': 9}, 'candidates.k = 9, but text.prompt.max_candidates = 1'),
  (
    {'traces.explanation_tokens': 31},
    'traces.explanation_tokens = 31, but rl.explanation_tokens = 32',
  ),
  ({'rl.entropy_bonus': 0.1}, 'rl.entropy_bonus = 0.1 does nothing'),
  ({'direct.steps': 3}, 'direct.steps = 3 with answer.ranking'),
  ({'sft.replay': 0.0}, 'sft.train.dropout = 0.1 takes its random numbers'),
  ({**LIST, 'sft.weights.answer': 0.0}, 'trains no answers'),
  (
    {
      **LIST,
      'direct.steps': 2,
      'rl.constrain': False,
      'rl.credit': 'answer',
    },
    'direct.steps = 2 needs rl.constrain',
  ),
  (
    {**LIST, 'direct.steps': 2, 'direct.max_new_tokens': 59},
    'direct.max_new_tokens = 59, but a list of 10 takes 60',
  ),
  ({'midtrain.tasks.stride': 22}, r'midtrain.tasks.stride = 22.*1\.\.21'),
  ({'midtrain.all.length': 127}, 'up to 128 tokens, but length is 127'),
  (
    {'midtrain.new_rows.steps': 1, 'midtrain.new_rows.length': 255},
    'midtrain.new_rows.length = 255',
  ),
  (
    {'sft.weights.answer': 0.0, 'sft.train.length': 127},
    'up to 128 tokens, but length is 127',
  ),
  ({'rl.lists': 'folds'}, "rl.lists = 'folds' needs lists of folds"),
  ({'candidates.fold_use': 'sft'}, "candidates.fold_use = 'sft' needs lists"),
  ({'traces.teacher': 'parrot'}, "traces.teacher is 'parrot'"),
  ({'midtrain.all.max_skipped': 0}, 'midtrain.all: max_skipped = 0'),
  ({'midtrain.all.batch_size': 0}, 'all: batch_size = 0: give 1 or more'),
  ({'midtrain.all.warmup': 1.5}, r'all: warmup = 1.5: give a share in \[0, 1'),
  ({'midtrain.all.warmup': 1.0}, 'midtrain.all: .*total_steps = 1500 must ex'),
  ({'midtrain.new_rows.lr': -1.0}, 'new_rows: lr = -1.0: give 0 or more'),
  ({'sft.train.dropout': 1.0}, 'sft.train: dropout = 1.0: give 0 or more, and'),
  ({'sft.train.log_every': 0}, 'sft.train: log_every = 0: give 1 or more'),
  ({'candidates.sasrec.max_epochs': 0}, 'candidates.sasrec: max_epochs = 0'),
  ({'candidates.sasrec.heads': 3}, 'width = 64 does not divide by heads = 3'),
  ({'evaluate.batch_size': 0}, 'evaluate: batch_size = 0: give 1 or more'),
  ({'sid.lr': -1.0}, 'sid: lr = -1.0: give 0 or more'),
  ({'rl.eps_low': 1.0}, 'rl.eps_low = 1.0 must be at least 0, below 1'),
  ({'rl.lr': -1.0}, 'rl.lr = -1.0 must be at least 0'),
  ({'traces.attempts': 0}, 'traces: attempts = 0: give 1 or more'),
  ({'traces.rules.window': 0}, 'traces.rules: window is 0; give 1 or more'),
  (
    {'lm.pretrained': 'smollm2', 'lm.width': 64},
    "lm.width = 64 beside lm.pretrained = 'smollm2'.*leave it at 160",
  ),
  ({'data.kind': 'generic'}, 'pass --config.data.dir=FOLDER'),
]


@pytest.mark.parametrize(('changes', 'message'), CASES)
def test_settings_that_contradict_each_other_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    experiment.read(_config(changes))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_numbers_are_finite(value):
  names = [
    name
    for name, default in config_lib.flatten(experiment.defaults()).items()
    if type(default) is float
  ]
  assert len(names) > 60
  for name in names:
    with pytest.raises(ValueError, match=f'^{name} = {value} is not finite'):
      experiment.read(_config({name: value}))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'data.world.k': 4}, 'data.world.k = 4, but .*max_candidates = 5'),
    ({'sid.codes': 9}, r'sid.levels, sid.codes = \(2, 9\).*the 2 and 8'),
    ({'rl.max_new_tokens': 22}, 'a list of 5 take 23 tokens'),
    ({'traces.keep': 1.5}, r'traces.keep = 1.5 must lie in \[0, 1\]'),
  ],
)
def test_worlds_have_rules_of_their_own(changes, message):
  base = reward_world.get_config().base
  experiment.read(_config({}, base))
  with pytest.raises(ValueError, match=message):
    experiment.read(_config(changes, base))


SOURCE = {'data': {'name': 'ml-100k', 'kind': 'ml-100k'}}


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    (
      {'rl': {'grup_size': 3}},
      'no setting rl.grup_size: did you mean rl.group_size',
    ),
    (
      {'candidates': {'sasrec': {'max_epoch': 3}}},
      'did you mean candidates.sasrec.max_epochs',
    ),
    ({'rll': {}}, 'no setting rll: did you mean rl'),
    ({'rl': {'steps': '3'}}, "rl.steps = '3' is of type str: give a whole"),
    ({'rl': {'steps': 3.0}}, 'rl.steps = 3.0 is of type float: give a whole'),
    ({'rl': {'steps': True}}, 'rl.steps = True is of type bool'),
    ({'rl': {'constrain': 1}}, 'rl.constrain = 1 is of type int: give True'),
    ({'rl': {'lr': '1'}}, "rl.lr = '1' is of type str: give a number"),
    ({'sid': {'hidden': 64}}, 'sid.hidden = 64 is of type int: give a seq'),
    ({'sid': {'hidden': [64, 'x']}}, "sid.hidden = 'x' is of type str"),
    ({'sft': {'train': 3}}, 'sft.train = 3 must be a section'),
    ({'sft': {'weights': {'answer': 'x'}}}, "sft.weights.answer = 'x'"),
    ({'sft': {'weights': 3}}, 'sft.weights = 3 is of type int'),
    ({'sid': {'init': 'zeros'}}, "sid.init = 'zeros' must be one of"),
  ],
)
def test_wrong_names_and_types_are_refused_by_name(section, message):
  with pytest.raises(ValueError, match=message):
    experiment.read(ml_collections.ConfigDict({**SOURCE, **section}))


def test_flags_that_texts_name_exist():
  known = set(dict(_leaves(experiment.defaults())))
  paths = [ROOT / 'README.md', ROOT / 'WORKSPACE.md']
  for folder in ('configs', 'launch', 'gr2_jax', 'results', 'tests'):
    paths += (ROOT / folder).rglob('*.md')
  for folder in ('configs', 'launch', 'gr2_jax'):
    paths += (ROOT / folder).rglob('*.py')
    paths += (ROOT / folder).rglob('*.sh')
  found = {
    name
    for path in paths
    for name in re.findall(
      r'--config\.(?:base\.)?([a-z]\w*(?:\.[a-z]\w*)+)', path.read_text()
    )
  }
  assert len(found) > 20
  assert sorted(found - known) == []
