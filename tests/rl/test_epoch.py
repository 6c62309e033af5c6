"""Epochs in which no group qualified are counted from the records."""

import dataclasses

from gr2_jax.rl import epoch
from tests.rl import tiny


def _record(step, rounds, fill):
  return {'step': step, 'rounds': rounds, 'fill_rate': fill}


def test_prompts_since_a_group_qualified():
  count = lambda *records: epoch.barren_prompts(records, tiny.CONFIG)
  assert count() == 0
  assert count(_record(1, 2.0, 0.0)) == 2 * tiny.Q
  assert count(_record(1, 2.0, 0.0), _record(2, 1.0, 0.5)) == 0
  # A record of three steps, one of a validation, one of a step.
  found = count(
    _record(1, 1.0, 1.0),
    _record(4, 2.0, 0.0),
    {'step': 4, 'valid_ndcg@5': 0.4},
    _record(5, 2.0, 0.0),
  )
  assert found == 8 * tiny.Q
  config = dataclasses.replace(tiny.CONFIG, over_sampling=2.0)
  assert epoch.barren_prompts([_record(1, 2.0, 0.0)], config) == 4 * tiny.Q


def test_the_message_names_what_happened_and_a_remedy():
  text = epoch.message(48, 3, 0, tiny.CONFIG)
  assert '3 of 4 steps and 0 updates' in text and '48 prompts' in text
  assert 'rl.group_size' in text
