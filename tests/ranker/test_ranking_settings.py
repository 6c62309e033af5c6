"""What RL on rankings refuses, because it would do nothing."""

import dataclasses

import ml_collections
import pytest

from gr2_jax.stages import rankings
from tests.rl import tiny


def _config(steps=0):
  return ml_collections.ConfigDict({'direct': {'steps': steps}})


@pytest.mark.parametrize(
  'changes',
  [
    {'kl': 0.5, 'reference': 'sft', 'credit': 'answer'},
    {'entropy_bonus': 0.1},
    {'old_logps': 'recomputed'},
    {'tis_cap': 2.0, 'old_logps': 'recomputed'},
    {'overlong_buffer': 2},
    {'constrain': False, 'credit': 'answer'},
  ],
)
def test_settings_of_written_lists_are_refused(changes):
  cfg = dataclasses.replace(tiny.RANKED, **changes)
  name, value = next(iter(changes.items()))
  with pytest.raises(
    ValueError, match=f"rl.{name} = {value!r} .*answer.ranking='likelihood'.*"
  ) as error:
    rankings.check(cfg, _config())
  assert "answer.ranking to 'list'" in str(error.value)


def test_a_second_round_is_refused():
  rankings.check(tiny.RANKED, _config())
  with pytest.raises(ValueError, match='direct.steps = 3 .*Set it to 0'):
    rankings.check(tiny.RANKED, _config(3))
