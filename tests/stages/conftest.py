"""What the tests of this folder share: made-up runs and tokenizers."""

import pytest

from gr2_jax import sharding
from gr2_jax.data import stored
from tests.integration import small


@pytest.fixture(scope='session')
def before_sft(tmp_path_factory, mesh1):
  """The finished stages before SFT: lists with columns, and traces."""
  root = tmp_path_factory.mktemp('before_sft')
  small.write_before_sft(root, mesh1)
  return root


@pytest.fixture
def listed(tmp_path, before_sft, mesh1, monkeypatch):
  """`listed(name)`: a run of its own on these stages, on one device."""
  monkeypatch.setattr(stored, 'load', lambda directory: small.dataset())
  monkeypatch.setattr(sharding, 'make_mesh', lambda **axes: mesh1)

  def make(name):
    (tmp_path / name).mkdir()
    for stage in before_sft.iterdir():
      (tmp_path / name / stage.name).symlink_to(stage)
    return tmp_path / name

  return make
