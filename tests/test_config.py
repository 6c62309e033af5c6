import dataclasses

import ml_collections
import pytest

from configs import common
from gr2_jax import config as config_lib


@dataclasses.dataclass(frozen=True)
class _Example:
  width: int
  rates: tuple[float, ...] = (0.1,)


def test_build_freezes_lists():
  section = ml_collections.ConfigDict({'width': 4, 'rates': [1.0, 2.0]})
  assert config_lib.build(_Example, section) == _Example(4, (1.0, 2.0))


def test_build_names_unknown_and_missing_fields():
  with pytest.raises(ValueError, match=r'no setting _Example.wdth: .*width\?'):
    config_lib.build(_Example, {'width': 4, 'wdth': 4})
  with pytest.raises(ValueError, match=r"needs \['width'\]"):
    config_lib.build(_Example, {})


def test_diff_names_what_differs():
  left = {'a': 1, 'b': {'c': 2, 'd': 3}}
  right = ml_collections.ConfigDict({'a': 1, 'b': {'c': 5}, 'e': 'x'})
  assert config_lib.diff(left, right) == [
    ('b.c', 2, 5),
    ('b.d', 3, None),
    ('e', None, 'x'),
  ]


def test_fingerprint_sees_values_not_order_or_type_of_mapping():
  left = {'a': 1, 'b': (1, 2)}
  right = ml_collections.ConfigDict({'b': (1, 2), 'a': 1})
  assert config_lib.fingerprint(left) == config_lib.fingerprint(right)
  assert config_lib.fingerprint(left) != config_lib.fingerprint({'a': 1})


def test_save_and_load_round_trip(tmp_path):
  config = ml_collections.ConfigDict({'a': {'b': [1, 2], 'c': None}})
  config_lib.save(config, tmp_path / 'config.json')
  loaded = config_lib.load(tmp_path / 'config.json')
  assert config_lib.diff(config, loaded) == []


def test_switches_take_the_type_of_their_default():
  switches = common.parse_switches(
    'fast,alpha=0,name=x', fast=False, alpha=0.2, name='', steps=3
  )
  assert switches.to_dict() == {
    'fast': True,
    'alpha': 0.0,
    'name': 'x',
    'steps': 3,
  }


@pytest.mark.parametrize('arg', ['speed=1', 'steps=many', 'fast=perhaps'])
def test_wrong_switches_are_named(arg):
  with pytest.raises(ValueError, match=arg.split('=')[0]):
    common.parse_switches(arg, fast=False, steps=3)
