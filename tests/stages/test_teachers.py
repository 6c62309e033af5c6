"""The teacher that a config names."""

import ml_collections
import pytest

from gr2_jax import config as config_lib
from gr2_jax.stages import requests, teachers


def test_a_teacher_that_does_not_exist_is_named():
  config = ml_collections.ConfigDict({'traces': {'teacher': 'parrot'}})
  with pytest.raises(ValueError, match=r"'parrot'; use one of \[.*'rules'"):
    teachers.make(config, None, None)


@pytest.mark.parametrize(
  'changed, words',
  [
    ({'mode': 'both'}, "mode = 'both'"),
    ({'near_duplicate': 1.5}, 'near_duplicate = 1.5'),
    ({'lists': -1}, 'lists = -1'),
  ],
)
def test_wrong_settings_are_named(changed, words):
  with pytest.raises(ValueError, match=words):
    config_lib.build(requests.TracesConfig, changed)
