"""What the tests of this folder share: made-up runs and tokenizers."""

import pathlib
import sys

import numpy as np
import pytest

_TESTS = pathlib.Path(__file__).parents[1]
# `small`, the made-up run, `made`, the made-up tokenizers, and `scripted`, the
# teacher.
sys.path[:0] = [
  str(_TESTS / name) for name in ('integration', 'text', 'teacher')
]


@pytest.fixture
def workdir(tmp_path, monkeypatch):
  """A run whose stages data and sid are finished."""
  import small

  from gr2_jax import files
  from gr2_jax.data import dataset as dataset_lib

  monkeypatch.setattr(dataset_lib, 'load', lambda directory: small.dataset())
  for stage in ('data', 'sid'):
    (tmp_path / stage).mkdir()
    files.write_json(tmp_path / stage / 'DONE', {'fingerprint': stage})
  files.atomic_savez(
    tmp_path / 'sid' / 'sids.npz', sids=small.sids().astype(np.int32)
  )
  return tmp_path
