"""Batches that devices cannot split (`test_experiment.py`: all settings)."""

import re

import pytest

from configs import reward_world, tiny
from gr2_jax import experiment
from gr2_jax.stages import checks, pipeline


def _refusals(parts, stages=tuple(pipeline.STAGES), config=None, **changes):
  """Mends what is refused, one batch at a time, and returns their names."""
  config = config or tiny.get_config()
  config.update_from_flattened_dict(changes)
  names = []
  while True:
    try:
      checks.check_batches(experiment.read(config), parts, stages)
      return names
    except ValueError as error:
      name, size = re.match(r'(\S+) = (\d+) ', str(error)).groups()
      multiple = int(re.search(r'multiple of (\d+)', str(error))[1])
      assert int(size) % multiple
      names.append(name)
      config.update_from_flattened_dict({name: multiple})


def test_one_device_takes_all():
  assert _refusals(1) == []
  assert _refusals(1, config=reward_world.get_config().base) == []


@pytest.mark.parametrize(
  ('stages', 'names'),
  [
    (('data', 'traces', 'evaluate'), []),
    (('sid',), ['sid.batch_size']),
    (
      ('midtrain',),
      ['midtrain.new_rows.batch_size', 'midtrain.all.batch_size'],
    ),
    (
      ('sft',),
      [
        *('sft.train.batch_size', 'sft.lists'),
        *('sft.explained', 'sft.distilled'),
      ],
    ),
    (('rl',), ['rl.lists_per_step', 'rl.explained_per_step']),
  ],
)
def test_each_stage_has_its_batches(stages, names):
  # All are powers of two.
  assert _refusals(3, stages) == names


def test_what_does_not_train_is_not_refused():
  given = {'midtrain.new_rows.steps': 0, 'sft.replay': 0.0}
  given |= {'sft.train.dropout': 0.0, 'sid.quantiser': 'kmeans'}
  assert _refusals(3, ('sid', 'midtrain', 'sft'), **given) == [
    'midtrain.all.batch_size', 'sft.lists', 'sft.explained', 'sft.distilled'
  ]  # fmt: skip


def test_lists_that_are_written_have_batches_of_their_own():
  config = tiny.get_config('answer=list')
  assert _refusals(3, config=config, stages=('sft', 'rl')) == [
    'sft.train.batch_size', 'rl.prompts_per_step'
  ]  # fmt: skip
  config = tiny.get_config('answer=list')
  assert _refusals(3, config=config, stages=('direct',)) == [
    'rl.prompts_per_step'
  ]


def test_microbatches_divide_too():
  changes = {'midtrain.all.batch_size': 12, 'midtrain.all.microbatches': 8}
  assert _refusals(4, ('midtrain',), **changes) == ['midtrain.all.batch_size']
